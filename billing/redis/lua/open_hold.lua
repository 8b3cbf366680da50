-- Shared by the scripts that end a hold; behind `common.lua`.

local function spend_rows(packed)
  local parts, rows = split(packed), {}
  for i = 1, #parts, 2 do
    local found = call('HMGET', parts[i], 'spent', 'held')
    rows[#rows + 1] = {
      key = parts[i], limit = whole(parts[i + 1], 'limit'), is_new = not found[1] and not found[2],
      spent = register(found[1], 'spent'), held = register(found[2], 'held'),
    }
  end
  return rows
end

-- A register that lost what was held in it must not keep a settle from being booked; the
-- comparison with Postgres finds the difference.
local function released(held, hold)
  return math.max(held - hold, 0)
end

-- The registers that an attempt counts in: all but those at the positions in `not_in`, which belong
-- to other models and suppliers of the same hold.
local function counted(rows, not_in)
  if not not_in or not_in == '' then return rows end
  local excluded, kept = {}, {}
  for _, position in ipairs(split(not_in)) do excluded[tonumber(position)] = true end
  for i, row in ipairs(rows) do
    if not excluded[i] then kept[#kept + 1] = row end
  end
  return kept
end

local function keys_of(rows)
  local keys = {}
  for i, row in ipairs(rows) do keys[i] = row.key end
  return table.concat(keys, ' ')
end

-- Leave all sets that count a request as open.
local function close(request, leases, open)
  call('ZREM', leases, request)
  for _, key in ipairs(split(open)) do call('ZREM', key, request) end
end

-- Correct the minute's token counters by what was not used after all.
local function give_back(minute, difference)
  local keys = split(minute)
  if difference == 0 or not keys[1] then return end
  local found = call('MGET', unpack(keys))
  for i, key in ipairs(keys) do
    if found[i] then call('INCRBY', key, text(difference)) end
  end
end
