-- Place a hold over every scope at once, or refuse and write nothing.
local counters = told_minute()
local known = call('MGET', epoch_key, clock_key,
  unpack(KEYS, at_minute + 1, at_minute + n_minute))
if is_cold(known[1], epoch) then return cold() end
local now, is_later = latest(known[2], now_ms)
local lease = lengthened(lease_until_ms, now_ms, now)
local hold = hold_nano

local stored = call('HMGET', hold_key, 'state', 'balance', 'session')
if stored[1] == 'open' then
  return placed{balance_nano = stored[2], session_nano = stored[3], shadows = {}}
end
if stored[1] then return gone{state = stored[1]} end
-- A drain that has stopped must not fill the memory.
if call('XLEN', stream_key) >= undrained_max then return behind() end

local tenant = call('HMGET', tenant_key, 'credit', 'spent', 'held', 'status', 'ends',
  'posted', 'past')
local refusal = barred(tenant_key, tenant[4], status_key, key_id)
if refusal then return refusal end

local open_keys = {}
for i, row in ipairs(told_open()) do
  open_keys[i] = row.key
  -- Leases that ran out do not count, swept or not.
  if call('ZCOUNT', row.key, '(' .. text(now), '+inf') >= row.limit then
    return refused{code = 'concurrency', key = row.key, limit = row.limit, left = 0,
      retry_after_ms = BUSY_RETRY_MS}
  end
end

local returning
refusal, returning = minute_counters(counters, known, tokens, now)
if refusal then return refusal end

local spend, session = told_spend(), nil
if in_session then
  session = spend[n_spend].key
  local ends = tonumber(call('ZSCORE', sessions_key, session) or '0')
  local live = '(' .. text(now)
  if ends <= now and call('ZCOUNT', sessions_key, live, '+inf') >= sessions_max then
    return refused{code = 'too_many_sessions', key = sessions_key, limit = sessions_max, left = 0,
      retry_after_ms = 0}
  end
end

local spent, held = register(tenant[2], 'spent'), register(tenant[3], 'held')
local before = noted(tenant[7])
note(before, tenant[6], spent + held, now)
local credit = register(tenant[1], 'credit')
  - ended(tenant[5], tenant[6], before, spent + held, now)
local free = credit - spent - held
if hold > 0 and hold > free then
  return refused{code = 'over_budget', key = tenant_key, limit = credit,
    left = math.max(free, 0), retry_after_ms = 0}
end
amount(held + hold, 'held')

local packed, would_refuse, session_spent = {}, {}, nil
for i, row in ipairs(spend) do
  local key, limit = row.key, row.limit_nano
  local found = call('HMGET', key, 'spent', 'held')
  local row_spent, row_held = register(found[1], 'spent'), register(found[2], 'held')
  local used = row_spent + row_held
  if limit >= 0 and hold > 0 and used + hold > limit then
    return refused{code = 'over_budget', key = key, limit = limit,
      left = math.max(limit - used, 0), retry_after_ms = 0}
  end
  if limit < -1 and hold > 0 and used + hold > -2 - limit then
    would_refuse[#would_refuse + 1] = key
  end
  row.held, row.is_new = amount(row_held + hold, 'held'), not found[2]
  packed[2 * i - 1], packed[2 * i] = key, text(limit)
  if key == session then session_spent = row_spent end
end
call('ZCARD', leases_key)

-- Nothing above has written; nothing below can fail.
local balance = free - hold
call('HSET', hold_key, 'state', 'open', 'tenant', tenant_key, 'hold', text(hold),
  'tokens', text(tokens), 'deadline', text(deadline_ms), 'balance', text(balance), 'event', event,
  'charge', '0', 'spend', table.concat(packed, ' '), 'open', table.concat(open_keys, ' '),
  'minute', table.concat(returning, ' '))
if overdraft_nano > 0 then
  call('HSET', hold_key, 'over', text(overdraft_nano), 'ceiling', text(ceiling_nano))
end
call('ZADD', leases_key, text(lease), request)
call('HSET', tenant_key, 'held', text(held + hold))
if next(before) then call('HSET', tenant_key, 'past', renoted(before, request, hold)) end
for _, row in ipairs(spend) do
  call('HSET', row.key, 'held', text(row.held))
  if row.is_new and row.goes_at_ms > 0 then
    call('PEXPIRE', row.key, lasting(row.goes_at_ms, now_ms))
  end
end
count_minutes(counters, minute_goes_at_ms, now_ms)
for _, key in ipairs(open_keys) do call('ZADD', key, text(lease), request) end
if session then
  call('HSET', hold_key, 'session', text(session_spent))
  call('PEXPIRE', session, lasting(session_until_ms, now_ms))
  call('ZREMRANGEBYSCORE', sessions_key, '-inf', text(now))
  call('ZADD', sessions_key, text(lengthened(session_until_ms, now_ms, now)), session)
  call('PEXPIRE', sessions_key, lasting(session_until_ms, now_ms))
end
if is_later then call('SET', clock_key, text(now)) end
return placed{balance_nano = balance, session_nano = session_spent, shadows = would_refuse}
