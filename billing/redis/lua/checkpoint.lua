-- Renew a hold's lease, and keep what to book should its owner fall silent.
local known = call('MGET', epoch_key, clock_key)
if is_cold(known[1], epoch) then return cold() end
local now, is_later = latest(known[2], now_ms)
local record = call('HMGET', hold_key, 'state', 'hold', 'deadline', 'open')
if record[1] ~= 'open' then return gone{state = record[1] or ''} end
local told = told_finished()
local lease = lengthened(lease_until_ms, now_ms, now)

call('HSET', hold_key, 'event', event,
  'charge', text(math.min(charge_nano, register(record[2], 'hold'))), 'not_in', not_in,
  'finished', text(n_finished))
for i, row in ipairs(told) do call('HSET', hold_key, 'finished' .. i, row.event) end
call('ZADD', leases_key, text(lease), request)
for _, key in ipairs(split(record[4])) do call('ZADD', key, text(lease), request) end
if is_later then call('SET', clock_key, text(now)) end
return renewed{lease_until_ms = lease}
