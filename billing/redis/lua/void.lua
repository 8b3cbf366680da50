-- Release a hold of which nothing was dispatched; nothing is charged and nothing is recorded.
-- KEYS: epoch clock tenant hold leases. ARGV: epoch now request kept_ms.
if is_cold(KEYS[1], ARGV[1]) then return {'cold'} end
local now, is_later = latest(KEYS[2], amount(ARGV[2], 'now'))
local kept_ms = amount(ARGV[4], 'kept_ms')
local record = redis.call('HMGET', KEYS[4], 'state', 'hold', 'tokens', 'deadline', 'spend', 'open',
  'minute')
if record[1] == 'voided' then return {'voided'} end
if record[1] ~= 'open' then return {'gone', record[1] or ''} end
local hold = register(record[2], 'hold')
local rows = spend_rows(record[5])
local tenant = redis.call('HMGET', KEYS[3], 'held', 'past')
local held = released(register(tenant[1], 'held'), hold)
local past = renoted(noted(tenant[2]), ARGV[3], -hold)

redis.call('HSET', KEYS[3], 'held', text(held))
if past ~= '' then redis.call('HSET', KEYS[3], 'past', past) end
for _, row in ipairs(rows) do
  redis.call('HSET', row.key, 'held', text(released(row.held, hold)))
end
close(ARGV[3], KEYS[5], record[6])
give_back(record[7], -register(record[3], 'tokens'))
redis.call('DEL', KEYS[4])
redis.call('HSET', KEYS[4], 'state', 'voided')
redis.call('PEXPIRE', KEYS[4], text(math.max(register(record[4], 'deadline') - now, 0) + kept_ms))
if is_later then redis.call('SET', KEYS[2], text(now)) end
return {'voided'}
