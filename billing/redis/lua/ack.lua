-- Acknowledge drained entries and apply to their registers the exact difference between what was
-- posted and what was debited: only for entries acknowledged here, so that it happens once.
local registers, groups, entries = told_registers(), told_groups(), told_entries()
local is_warm = not is_cold(call('GET', epoch_key), epoch)
for _, group in ipairs(groups) do
  for _, part in ipairs({'debited', 'missed'}) do
    local positions = split(group[part])
    for i, position in ipairs(positions) do
      positions[i] = tonumber(position)
      if not registers[positions[i]] then misplaced('groups') end
    end
    group[part] = positions
  end
end
for _, entry in ipairs(entries) do
  if not groups[entry.group] then misplaced('entries') end
end

-- A register that is none stops this before anything is acknowledged: once it is, nobody would
-- correct the others. A cold shard's are about to be written anew, whatever is in them.
local rows = {}
for position, named in ipairs(is_warm and registers or {}) do
  local row = call('HMGET', named.key, 'spent', 'pico', 'held')
  rows[position] = {is_there = row[1] or row[3], spent = register(row[1], 'spent'),
    pico = register(row[2], 'pico')}
end

local n_acknowledged, nano, pico = 0, {}, {}
local function add(positions, more_nano, more_pico)
  for _, position in ipairs(positions) do
    nano[position] = (nano[position] or 0) + more_nano
    pico[position] = (pico[position] or 0) + more_pico
  end
end
local exact_ids = split(exact)
if #exact_ids > 0 then
  n_acknowledged = call('XACK', stream_key, drain, unpack(exact_ids))
end
for _, entry in ipairs(entries) do
  if call('XACK', stream_key, drain, entry.id) == 1 then
    n_acknowledged = n_acknowledged + 1
    add(groups[entry.group].debited, entry.nano, entry.pico)
    add(groups[entry.group].missed, entry.missed_nano, entry.missed_pico)
  end
end
-- An expired window's register must not come back.
for position, difference in pairs(nano) do
  local row = rows[position]
  if row and row.is_there then
    local rest = row.pico + pico[position]
    local carry = math.floor(rest / PICO_PER_NANO)
    call('HSET', registers[position].key, 'spent', text(row.spent + difference + carry),
      'pico', text(rest - carry * PICO_PER_NANO))
  end
end
return acknowledged{entries = n_acknowledged}
