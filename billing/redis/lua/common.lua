-- Shared by every script; put in front of it when it is loaded.
-- Numbers here are doubles: amounts stay below 2^52, and become text by %.0f only.
-- A script reads and validates all it needs before its first write.
local MAX = 4503599627370496

local function text(number)
  return string.format('%.0f', number)
end

local function whole(value, name)
  local number = tonumber(value)
  if number == nil or number ~= math.floor(number) or number >= MAX or number <= -MAX then
    error('not a whole number below 2^52: ' .. name)
  end
  return number
end

local function amount(value, name)
  local number = whole(value, name)
  if number < 0 then error('negative ' .. name) end
  return number
end

-- A register that does not exist yet is zero.
local function register(value, name)
  if not value then return 0 end
  return whole(value, name)
end

local function is_cold(key, epoch)
  local known = redis.call('GET', key)
  return epoch == '' or known ~= epoch
end

-- Time never goes back, whatever the caller's clock says.
local function latest(key, now)
  local seen = tonumber(redis.call('GET', key) or '0')
  if seen > now then return seen, false end
  return now, seen < now
end

-- A lease by a clock that is behind the latest one seen lasts as long by that one: a clock that ran
-- ahead for a moment must not end every lease that is given out after it.
local function lengthened(lease, said, now)
  return lease + now - said
end

local function split(packed)
  local parts = {}
  for part in string.gmatch(packed or '', '%S+') do parts[#parts + 1] = part end
  return parts
end

-- How long from a caller's now until its then; never zero, which would be an error or a deletion.
local function lasting(goes_at, now)
  return text(math.max(goes_at - now, 1000))
end

-- The time inside a request's id (a UUIDv7), in milliseconds.
local function admitted(request)
  return tonumber(string.sub(request, 1, 8) .. string.sub(request, 10, 13), 16)
end

-- Per moment at which credit of a tenant begins or ends: what requests of before it have spent and
-- hold.
local function noted(past)
  local parts, before = split(past), {}
  for i = 1, #parts, 2 do before[parts[i]] = whole(parts[i + 1], 'past') end
  return before
end

-- The first hold after a moment notes what those of before it have spent and hold.
local function note(before, posted, used, now)
  local parts = split(posted)
  for i = 1, #parts, 2 do
    if whole(parts[i], 'moment') <= now then before[parts[i]] = before[parts[i]] or used end
  end
end

-- Credit that has ended and is not taken back yet: what of it requests of before its end neither
-- spend nor hold. `ends`: per credit from when and until when it pays, and what was left; `posted`:
-- per moment the debits that this was reckoned with. `billing/credit/credit_ends.py` has the same arithmetic.
local function ended(ends, posted, before, used, now)
  local parts, pots, lost = split(ends), {}, 0
  if #parts == 0 then return 0 end
  for i = 1, #parts, 3 do
    pots[#pots + 1] = {from = whole(parts[i], 'from'), till = whole(parts[i + 1], 'until'),
      left = amount(parts[i + 2], 'left')}
  end
  parts = split(posted)
  local since, pending
  for i = 1, #parts, 2 do
    local at = whole(parts[i], 'moment')
    if at > now then break end
    local due = (before[parts[i]] or used) - amount(parts[i + 1], 'posted')
    local rest = math.max(due - (pending or 0), 0)
    for _, pot in ipairs(pots) do
      if since and pot.from <= since and at <= pot.till then
        local paid = math.min(pot.left, rest)
        pot.left, rest = pot.left - paid, rest - paid
      end
    end
    since, pending = at, due
  end
  for _, pot in ipairs(pots) do
    if pot.till <= now then lost = lost + pot.left end
  end
  return lost
end

-- The notes after a request's part of them has changed by this.
local function renoted(before, request, difference)
  local at = next(before) and difference ~= 0 and admitted(request)
  local packed = {}
  for last, nano in pairs(before) do
    if at and at < tonumber(last) then before[last] = math.max(nano + difference, 0) end
    packed[#packed + 1] = last .. ' ' .. text(before[last])
  end
  return table.concat(packed, ' ')
end

local function spend_rows(packed)
  local parts, rows = split(packed), {}
  for i = 1, #parts, 2 do
    local found = redis.call('HMGET', parts[i], 'spent', 'held')
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
  redis.call('ZREM', leases, request)
  for _, key in ipairs(split(open)) do redis.call('ZREM', key, request) end
end

-- Correct the minute's token counters by what was not used after all.
local function give_back(minute, difference)
  if difference == 0 then return end
  for _, key in ipairs(split(minute)) do
    if redis.call('EXISTS', key) == 1 then redis.call('INCRBY', key, text(difference)) end
  end
end

-- The minute's counters at these places of KEYS and ARGV, or why one refuses; the third result are
-- those that a settle gives back to.
local function minute_counters(at_key, at_arg, n, now)
  local counters, returning = {}, {}
  for i = 1, n do
    local key, base = KEYS[at_key + i], at_arg + 4 * (i - 1)
    local wanted, limit = amount(ARGV[base + 1], 'amount'), amount(ARGV[base + 2], 'rate limit')
    local used = register(redis.call('GET', key), 'counter')
    if used + wanted > limit then
      local left = math.max(limit - used, 0)
      return {'refused', 'rate_limited', key, text(limit), text(left), text(60000 - now % 60000)}
    end
    counters[i] = {key, wanted, amount(ARGV[base + 3], 'goes_at'), used}
    if ARGV[base + 4] == '1' then returning[#returning + 1] = key end
  end
  return nil, counters, returning
end

local function count_minutes(counters, said)
  for _, row in ipairs(counters) do
    redis.call('SET', row[1], text(row[4] + row[2]), 'PX', lasting(row[3], said))
  end
end
