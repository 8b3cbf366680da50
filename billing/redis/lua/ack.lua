-- Acknowledge drained entries and apply to their registers the exact difference between what was
-- posted and what was debited: only for entries acknowledged here, so that it happens once.
-- KEYS: epoch stream, then the registers that occur.
-- ARGV: epoch group n_exact, ids with nothing to correct; n_groups, then per group of entries that
-- count in the same registers: n_parts, per part its number of registers and their positions;
-- n_entries, per entry its id and per part nano, pico (0..999).
local FIXED_KEYS, FIRST = 2, 4
local is_warm = not is_cold(KEYS[1], ARGV[1])

local function group_at(at)
  local group = {parts = {}, ids = {}, nano = {}, pico = {}}
  local n_parts = amount(ARGV[at], 'parts')
  at = at + 1
  for p = 1, n_parts do
    local n = amount(ARGV[at], 'registers')
    group.parts[p] = {}
    for i = 1, n do group.parts[p][i] = amount(ARGV[at + i], 'position') end
    at = at + 1 + n
  end
  local n_entries = amount(ARGV[at], 'entries')
  at = at + 1
  for e = 1, n_entries do
    group.ids[e] = ARGV[at]
    for p = 1, n_parts do
      group.nano[(e - 1) * n_parts + p] = whole(ARGV[at + 2 * p - 1], 'nano')
      group.pico[(e - 1) * n_parts + p] = amount(ARGV[at + 2 * p], 'pico')
    end
    at = at + 1 + 2 * n_parts
  end
  return group, at
end

local n_exact = amount(ARGV[3], 'exact')
local exact, groups, at = {}, {}, FIRST + n_exact + 1
for i = 1, n_exact do exact[i] = ARGV[FIRST + i - 1] end
for g = 1, amount(ARGV[FIRST + n_exact], 'groups') do
  groups[g], at = group_at(at)
end

-- A register that is none stops this before anything is acknowledged: once it is, nobody would
-- correct the others. A cold shard's are about to be written anew, whatever is in them.
local rows = {}
for position = 1, is_warm and #KEYS - FIXED_KEYS or 0 do
  local row = redis.call('HMGET', KEYS[FIXED_KEYS + position], 'spent', 'pico', 'held')
  rows[position] = {is_there = row[1] or row[3], spent = register(row[1], 'spent'),
    pico = register(row[2], 'pico')}
end

local acknowledged, nano, pico = 0, {}, {}
if n_exact > 0 then acknowledged = redis.call('XACK', KEYS[2], ARGV[2], unpack(exact)) end
for _, group in ipairs(groups) do
  local n_parts = #group.parts
  for e, id in ipairs(group.ids) do
    if redis.call('XACK', KEYS[2], ARGV[2], id) == 1 then
      acknowledged = acknowledged + 1
      for p, positions in ipairs(group.parts) do
        local at_entry = (e - 1) * n_parts + p
        for _, position in ipairs(positions) do
          nano[position] = (nano[position] or 0) + group.nano[at_entry]
          pico[position] = (pico[position] or 0) + group.pico[at_entry]
        end
      end
    end
  end
end
-- An expired window's register must not come back.
for position, difference in pairs(nano) do
  local row = rows[position]
  if row and row.is_there then
    local rest = row.pico + pico[position]
    local carry = math.floor(rest / 1000)
    redis.call('HSET', KEYS[FIXED_KEYS + position], 'spent',
      text(row.spent + difference + carry), 'pico', text(rest - carry * 1000))
  end
end
return {is_warm and 'warm' or 'cold', tostring(acknowledged)}
