-- Expire one hold whose lease ran out: release it, charge its last checkpoint, and append the
-- events of its finished attempts and of the unknown one.
-- KEYS: epoch clock hold leases stream. ARGV: epoch now request kept_ms.
if is_cold(KEYS[1], ARGV[1]) then return {'cold'} end
local now, is_later = latest(KEYS[2], amount(ARGV[2], 'now'))
local request, kept_ms = ARGV[3], amount(ARGV[4], 'kept_ms')
local lease = redis.call('ZSCORE', KEYS[4], request)
if not lease or tonumber(lease) > now then return {'live'} end
local record = redis.call('HMGET', KEYS[3], 'state', 'tenant', 'hold', 'charge', 'event', 'spend',
  'open', 'finished', 'not_in')
if record[1] ~= 'open' then
  redis.call('ZREM', KEYS[4], request)
  return {'gone', record[1] or ''}
end
local hold = register(record[3], 'hold')
local charge = math.min(register(record[4], 'charge'), hold)
local rows = spend_rows(record[6])
local own_rows = counted(rows, record[9])
local tenant = redis.call('HMGET', record[2], 'spent', 'held', 'past')
local past = renoted(noted(tenant[3]), request, charge - hold)
local spent = amount(register(tenant[1], 'spent') + charge, 'spent')
local held = released(register(tenant[2], 'held'), hold)
for _, row in ipairs(own_rows) do
  row.spent = math.min(row.spent + charge, MAX - 1)
end
local attempt = cjson.decode(record[5]).attempt
local spend_keys = keys_of(own_rows)

for i = 1, register(record[8], 'finished') do
  local event = redis.call('HGET', KEYS[3], 'finished' .. i)
  redis.call('XADD', KEYS[5], '*', 't', record[2], 'e', event, 'c', '0', 'h', text(hold),
    'o', '0', 'k', spend_keys, 'l', '0')
end
redis.call('XADD', KEYS[5], '*', 't', record[2], 'e', record[5], 'c', text(charge),
  'h', text(hold), 'o', '0', 'k', spend_keys, 'l', '0', 'x', '1')
redis.call('HSET', record[2], 'spent', text(spent), 'held', text(held))
if past ~= '' then redis.call('HSET', record[2], 'past', past) end
for _, row in ipairs(rows) do
  redis.call('HSET', row.key, 'spent', text(row.spent),
    'held', text(released(row.held, hold)))
end
close(request, KEYS[4], record[7])
-- The marker keeps what a late settle must know: the limits, and what is charged already.
redis.call('DEL', KEYS[3])
redis.call('HSET', KEYS[3], 'state', 'expired', 'hold', text(hold), 'spend', record[6],
  'prior', text(charge), 'attempt', tostring(attempt))
redis.call('PEXPIRE', KEYS[3], text(kept_ms))
if is_later then redis.call('SET', KEYS[2], text(now)) end
return {'expired', text(charge)}
