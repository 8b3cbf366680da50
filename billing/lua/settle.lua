-- Debit what a request cost, release its hold, and append its usage events: one step.
-- With an open hold the tenant pays at most the hold; without one, at most the free headroom.
-- KEYS: epoch clock tenant hold leases stream, then spend registers for a hold nobody remembers.
-- ARGV: epoch now request tokens(-1 = not known) kept_ms n_attempts n_spend,
--       then per attempt: event, charge; per spend register: limit.
local FIXED_KEYS, FIXED_ARGS = 6, 7
if is_cold(KEYS[1], ARGV[1]) then return {'cold'} end
local now, is_later = latest(KEYS[2], amount(ARGV[2], 'now'))
local request, kept_ms = ARGV[3], amount(ARGV[5], 'kept_ms')
local n_attempts, n_spend = tonumber(ARGV[6]), tonumber(ARGV[7])
local record = redis.call('HMGET', KEYS[4], 'state', 'hold', 'tokens', 'deadline', 'spend', 'open',
  'minute', 'prior', 'attempt', 'charged', 'overage', 'late', 'balance')
local state = record[1]
if state == 'settled' then
  return {'settled', record[10], record[11], record[12], record[13]}
end

local is_late = state ~= 'open'
local hold = register(record[2], 'hold')
local prior = register(record[8], 'prior')
local packed = record[5]
if not packed then
  local pairs_of = {}
  for i = 1, n_spend do
    pairs_of[2 * i - 1] = KEYS[FIXED_KEYS + i]
    pairs_of[2 * i] = ARGV[FIXED_ARGS + 2 * n_attempts + i]
  end
  packed = table.concat(pairs_of, ' ')
end
local rows = spend_rows(packed)
local tenant = redis.call('HMGET', KEYS[3], 'credit', 'spent', 'held')
local credit, spent = register(tenant[1], 'credit'), register(tenant[2], 'spent')
local held = register(tenant[3], 'held')

local left = hold
if is_late then left = prior + headroom(credit - spent - held, rows) end
local entries, debit, charged, overage = {}, 0, 0, 0
for i = 1, n_attempts do
  local event = ARGV[FIXED_ARGS + 2 * i - 1]
  local charge = amount(ARGV[FIXED_ARGS + 2 * i], 'charge')
  local paid = math.min(charge, left)
  left = left - paid
  charged, overage = charged + paid, overage + charge - paid
  local entry = {event = event, debit = paid, overage = charge - paid}
  -- What the expiry of this attempt charged already is part of what it cost.
  if prior > 0 and cjson.decode(event).attempt == tonumber(record[9]) then
    entry.debit, prior = paid - prior, 0
  end
  debit = debit + entry.debit
  entries[i] = entry
end
local difference = 0
if not is_late and ARGV[4] ~= '-1' then
  difference = amount(ARGV[4], 'tokens') - register(record[3], 'tokens')
end
if not is_late then held = released(held, hold) end
amount(spent + debit, 'spent')
for _, row in ipairs(rows) do
  if not is_late then row.held = released(row.held, hold) end
  amount(row.spent + debit, 'spent')
end
local keep_ms = math.max(register(record[4], 'deadline') - now, 0) + kept_ms
local spend_keys = keys_of(rows)

-- The append comes first: it is the only write that could still fail.
for _, entry in ipairs(entries) do
  redis.call('XADD', KEYS[6], '*', 't', KEYS[3], 'e', entry.event, 'c', text(entry.debit),
    'h', text(hold), 'o', text(entry.overage), 'k', spend_keys, 'l', is_late and '1' or '0')
end
redis.call('HSET', KEYS[3], 'spent', text(spent + debit), 'held', text(held))
for _, row in ipairs(rows) do
  redis.call('HSET', row.key, 'spent', text(row.spent + debit), 'held', text(row.held))
  if row.is_new and string.sub(row.key, -9) ~= ':lifetime' then
    redis.call('PEXPIRE', row.key, '3024000000')
  end
end
close(request, KEYS[5], record[6])
give_back(record[7], difference)
local late, balance = is_late and '1' or '0', text(credit - spent - debit - held)
redis.call('DEL', KEYS[4])
redis.call('HSET', KEYS[4], 'state', 'settled', 'charged', text(charged),
  'overage', text(overage), 'late', late, 'balance', balance)
redis.call('PEXPIRE', KEYS[4], text(keep_ms))
if is_later then redis.call('SET', KEYS[2], text(now)) end
return {'settled', text(charged), text(overage), late, balance}
