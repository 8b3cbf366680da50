-- Release a hold of which nothing was dispatched; nothing is charged and nothing is recorded.
local known = call('MGET', epoch_key, clock_key)
if is_cold(known[1], epoch) then return cold() end
local now, is_later = latest(known[2], now_ms)
local record = call('HMGET', hold_key, 'state', 'hold', 'tokens', 'deadline', 'spend', 'open',
  'minute')
if record[1] == 'voided' then return voided() end
if record[1] ~= 'open' then return gone{state = record[1] or ''} end
local hold = register(record[2], 'hold')
local rows = spend_rows(record[5])
local tenant = call('HMGET', tenant_key, 'held', 'past')
local held = released(register(tenant[1], 'held'), hold)
local past = renoted(noted(tenant[2]), request, -hold)

call('HSET', tenant_key, 'held', text(held))
if past ~= '' then call('HSET', tenant_key, 'past', past) end
for _, row in ipairs(rows) do
  call('HSET', row.key, 'held', text(released(row.held, hold)))
end
close(request, leases_key, record[6])
give_back(record[7], -register(record[3], 'tokens'))
call('DEL', hold_key)
call('HSET', hold_key, 'state', 'voided')
call('PEXPIRE', hold_key, text(math.max(register(record[4], 'deadline') - now, 0) + kept_ms))
if is_later then call('SET', clock_key, text(now)) end
return voided()
