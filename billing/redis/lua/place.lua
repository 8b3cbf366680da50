-- Place a hold over every scope at once, or refuse and write nothing.
-- KEYS: epoch clock tenant keys hold leases stream, then spend registers, minute counters, open
--       sets, and the tenant's sessions where the last spend register is one's.
-- ARGV: epoch now request key hold ceiling over tokens lease deadline event n_spend n_minute n_open
--       entries_max sessions_max(0 = no session) session_until, then per spend register: limit
--       (-1 = none, -2 - n = n in shadow), goes_at; per counter: amount, limit, goes_at, gives_back
--       (1 = the settle returns what was not used); per open set: limit.
-- Answers: placed, balance, spent of the session, then the shadow registers it would not fit into.
local FIXED_KEYS, FIXED_ARGS = 7, 17
if is_cold(KEYS[1], ARGV[1]) then return {'cold'} end
local said = amount(ARGV[2], 'now')
local now, is_later = latest(KEYS[2], said)
local request, key_id = ARGV[3], ARGV[4]
local hold, ceiling = amount(ARGV[5], 'hold'), amount(ARGV[6], 'ceiling')
local over, tokens = amount(ARGV[7], 'over'), amount(ARGV[8], 'tokens')
local lease = lengthened(amount(ARGV[9], 'lease'), said, now)
local deadline = amount(ARGV[10], 'deadline')
local n_spend, n_minute, n_open = tonumber(ARGV[12]), tonumber(ARGV[13]), tonumber(ARGV[14])
local sessions_max, session_until = amount(ARGV[16], 'sessions_max'), amount(ARGV[17], 'until')

local stored = redis.call('HMGET', KEYS[5], 'state', 'balance', 'session')
if stored[1] == 'open' then return {'placed', stored[2], stored[3] or ''} end
if stored[1] then return {'gone', stored[1]} end
-- A drain that has stopped must not fill the memory.
if redis.call('XLEN', KEYS[7]) >= amount(ARGV[15], 'entries_max') then return {'behind'} end

local tenant = redis.call('HMGET', KEYS[3], 'credit', 'spent', 'held', 'status', 'ends',
  'posted', 'past')
if tenant[4] == 'suspended' then return {'refused', 'tenant_suspended', KEYS[3], '0', '0', '0'} end
if redis.call('HGET', KEYS[4], key_id) == 'revoked' then
  return {'refused', 'key_revoked', KEYS[4], '0', '0', '0'}
end

local at_key, at_arg = FIXED_KEYS + n_spend + n_minute, FIXED_ARGS + 2 * n_spend + 4 * n_minute
local open_keys = {}
for i = 1, n_open do
  local key, limit = KEYS[at_key + i], amount(ARGV[at_arg + i], 'concurrency')
  open_keys[i] = key
  -- Leases that ran out do not count, swept or not.
  local open = redis.call('ZCOUNT', key, '(' .. text(now), '+inf')
  if open >= limit then return {'refused', 'concurrency', key, text(limit), '0', '1000'} end
end

local refusal, counters, returning = minute_counters(FIXED_KEYS + n_spend,
  FIXED_ARGS + 2 * n_spend, n_minute, now)
if refusal then return refusal end

local sessions, session = KEYS[#KEYS], nil
if sessions_max > 0 then
  session = KEYS[FIXED_KEYS + n_spend]
  local ends = tonumber(redis.call('ZSCORE', sessions, session) or '0')
  local live = '(' .. text(now)
  if ends <= now and redis.call('ZCOUNT', sessions, live, '+inf') >= sessions_max then
    return {'refused', 'too_many_sessions', sessions, text(sessions_max), '0', '0'}
  end
end

local spent, held = register(tenant[2], 'spent'), register(tenant[3], 'held')
local before = noted(tenant[7])
note(before, tenant[6], spent + held, now)
local credit = register(tenant[1], 'credit')
  - ended(tenant[5], tenant[6], before, spent + held, now)
local free = credit - spent - held
if hold > 0 and hold > free then
  return {'refused', 'over_budget', KEYS[3], text(credit), text(math.max(free, 0)), '0'}
end
amount(held + hold, 'held')

local registers, packed, would_refuse, session_spent = {}, {}, {}, ''
for i = 1, n_spend do
  local key, base = KEYS[FIXED_KEYS + i], FIXED_ARGS + 2 * (i - 1)
  local limit, goes_at = whole(ARGV[base + 1], 'limit'), amount(ARGV[base + 2], 'goes_at')
  local row = redis.call('HMGET', key, 'spent', 'held')
  local row_spent, row_held = register(row[1], 'spent'), register(row[2], 'held')
  local used = row_spent + row_held
  if limit >= 0 and hold > 0 and used + hold > limit then
    return {'refused', 'over_budget', key, text(limit), text(math.max(limit - used, 0)), '0'}
  end
  if limit < -1 and hold > 0 and used + hold > -2 - limit then
    would_refuse[#would_refuse + 1] = key
  end
  registers[i] = {key, amount(row_held + hold, 'held'), goes_at, row[2]}
  packed[2 * i - 1], packed[2 * i] = key, text(limit)
  if key == session then session_spent = text(row_spent) end
end
redis.call('ZCARD', KEYS[6])

-- Nothing above has written; nothing below can fail.
local balance = text(free - hold)
redis.call('HSET', KEYS[5], 'state', 'open', 'tenant', KEYS[3], 'hold', text(hold),
  'tokens', text(tokens), 'deadline', text(deadline), 'balance', balance, 'event', ARGV[11],
  'charge', '0', 'spend', table.concat(packed, ' '), 'open', table.concat(open_keys, ' '),
  'minute', table.concat(returning, ' '))
if over > 0 then
  redis.call('HSET', KEYS[5], 'over', text(over), 'ceiling', text(ceiling))
end
redis.call('ZADD', KEYS[6], text(lease), request)
redis.call('HSET', KEYS[3], 'held', text(held + hold))
if next(before) then redis.call('HSET', KEYS[3], 'past', renoted(before, request, hold)) end
for _, row in ipairs(registers) do
  redis.call('HSET', row[1], 'held', text(row[2]))
  if not row[4] and row[3] > 0 then redis.call('PEXPIRE', row[1], lasting(row[3], said)) end
end
count_minutes(counters, said)
for _, key in ipairs(open_keys) do redis.call('ZADD', key, text(lease), request) end
if session then
  redis.call('HSET', KEYS[5], 'session', session_spent)
  redis.call('PEXPIRE', session, lasting(session_until, said))
  redis.call('ZREMRANGEBYSCORE', sessions, '-inf', text(now))
  redis.call('ZADD', sessions, text(lengthened(session_until, said, now)), session)
  redis.call('PEXPIRE', sessions, lasting(session_until, said))
end
if is_later then redis.call('SET', KEYS[2], text(now)) end
return {'placed', balance, session_spent, unpack(would_refuse)}
