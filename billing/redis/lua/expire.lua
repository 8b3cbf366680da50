-- Expire one hold whose lease ran out: release it, charge its last checkpoint, and append the
-- events of its finished attempts and of the unknown one.
local known = call('MGET', epoch_key, clock_key)
if is_cold(known[1], epoch) then return cold() end
local now, is_later = latest(known[2], now_ms)
local lease = call('ZSCORE', leases_key, request)
if not lease or tonumber(lease) > now then return live() end
local record = call('HMGET', hold_key, 'state', 'tenant', 'hold', 'charge', 'event', 'spend',
  'open', 'finished', 'not_in')
if record[1] ~= 'open' then
  call('ZREM', leases_key, request)
  return gone{state = record[1] or ''}
end
local hold = register(record[3], 'hold')
local charge = math.min(register(record[4], 'charge'), hold)
local rows = spend_rows(record[6])
local own_rows = counted(rows, record[9])
local tenant = call('HMGET', record[2], 'spent', 'held', 'past')
local past = renoted(noted(tenant[3]), request, charge - hold)
local spent = amount(register(tenant[1], 'spent') + charge, 'spent')
local held = released(register(tenant[2], 'held'), hold)
for _, row in ipairs(own_rows) do
  row.spent = math.min(row.spent + charge, REGISTER_MAX - 1)
end
local attempt = cjson.decode(record[5]).attempt
local spend_keys = keys_of(own_rows)

for i = 1, register(record[8], 'finished') do
  local event = call('HGET', hold_key, 'finished' .. i)
  call('XADD', stream_key, '*', 't', record[2], 'e', event, 'c', '0', 'h', text(hold),
    'o', '0', 'k', spend_keys, 'l', '0')
end
call('XADD', stream_key, '*', 't', record[2], 'e', record[5], 'c', text(charge),
  'h', text(hold), 'o', '0', 'k', spend_keys, 'l', '0', 'x', '1')
call('HSET', record[2], 'spent', text(spent), 'held', text(held))
if past ~= '' then call('HSET', record[2], 'past', past) end
for _, row in ipairs(rows) do
  call('HSET', row.key, 'spent', text(row.spent),
    'held', text(released(row.held, hold)))
end
close(request, leases_key, record[7])
-- The marker keeps what a late settle must know: the limits, and what is charged already.
call('DEL', hold_key)
call('HSET', hold_key, 'state', 'expired', 'hold', text(hold), 'spend', record[6],
  'prior', text(charge), 'attempt', tostring(attempt))
call('PEXPIRE', hold_key, text(kept_ms))
if is_later then call('SET', clock_key, text(now)) end
return expired{charged_nano = charge}
