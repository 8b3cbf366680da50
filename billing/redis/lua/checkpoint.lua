-- Renew a hold's lease, and keep what to book should its owner fall silent.
-- KEYS: epoch clock hold leases. ARGV: epoch now request lease event charge not_in n_finished, then
-- the events of attempts that are over already.
if is_cold(KEYS[1], ARGV[1]) then return {'cold'} end
local said = amount(ARGV[2], 'now')
local now, is_later = latest(KEYS[2], said)
local request, charge = ARGV[3], amount(ARGV[6], 'charge')
local record = redis.call('HMGET', KEYS[3], 'state', 'hold', 'deadline', 'open')
if record[1] ~= 'open' then return {'gone', record[1] or ''} end
local lease = lengthened(amount(ARGV[4], 'lease'), said, now)

redis.call('HSET', KEYS[3], 'event', ARGV[5],
  'charge', text(math.min(charge, register(record[2], 'hold'))), 'not_in', ARGV[7],
  'finished', ARGV[8])
for i = 1, tonumber(ARGV[8]) do redis.call('HSET', KEYS[3], 'finished' .. i, ARGV[8 + i]) end
redis.call('ZADD', KEYS[4], text(lease), request)
for _, key in ipairs(split(record[4])) do redis.call('ZADD', key, text(lease), request) end
if is_later then redis.call('SET', KEYS[2], text(now)) end
return {'renewed', text(lease)}
