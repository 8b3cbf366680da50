-- Acknowledge drained entries and apply to their registers the exact difference between what was
-- posted and what was debited: only for entries acknowledged here, so that it happens once.
-- KEYS: epoch stream, then the registers that occur. ARGV: epoch group n_entries, then per entry:
-- id, number of registers, and per register: its position, nano, pico (0..999).
local FIXED_KEYS, FIRST = 2, 4
local is_warm = not is_cold(KEYS[1], ARGV[1])
local at, nano, pico = FIRST, {}, {}
for _ = 1, tonumber(ARGV[3]) do
  local n = amount(ARGV[at + 1], 'registers')
  for i = at + 2, at + 1 + 3 * n, 3 do
    whole(ARGV[i + 1], 'nano')
    amount(ARGV[i + 2], 'pico')
  end
  at = at + 2 + 3 * n
end
at = FIRST
local acknowledged = 0
for _ = 1, tonumber(ARGV[3]) do
  local n = tonumber(ARGV[at + 1])
  if redis.call('XACK', KEYS[2], ARGV[2], ARGV[at]) == 1 then
    acknowledged = acknowledged + 1
    for i = at + 2, at + 1 + 3 * n, 3 do
      local position = tonumber(ARGV[i])
      nano[position] = (nano[position] or 0) + tonumber(ARGV[i + 1])
      pico[position] = (pico[position] or 0) + tonumber(ARGV[i + 2])
    end
  end
  at = at + 2 + 3 * n
end
-- A cold shard's registers are about to be rebuilt from what was posted; an expired window's
-- register must not come back.
for position, difference in pairs(nano) do
  local key = KEYS[FIXED_KEYS + position]
  local row = redis.call('HMGET', key, 'spent', 'pico', 'held')
  if is_warm and (row[1] or row[3]) then
    local rest = register(row[2], 'pico') + pico[position]
    local carry = math.floor(rest / 1000)
    redis.call('HSET', key, 'spent', text(register(row[1], 'spent') + difference + carry),
      'pico', text(rest - carry * 1000))
  end
end
return {is_warm and 'warm' or 'cold', tostring(acknowledged)}
