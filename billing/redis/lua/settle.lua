-- Debit what a request cost, release its hold, and append its usage events: one step.
-- With an open hold the tenant pays at most the hold, and beyond it, up to the ceiling, what its
-- overdraft leaves room for; without one, at most the free headroom.
-- KEYS: epoch clock tenant hold leases stream, then spend registers for a hold nobody remembers.
-- ARGV: epoch now request tokens(-1 = not known) kept_ms n_attempts n_spend,
--       then per attempt: event, charge, positions of the registers it does not count in;
--       per spend register: limit.
-- Answers: settled, charged, overage, late, balance, spent of the session.
local FIXED_KEYS, FIXED_ARGS = 6, 7
if is_cold(KEYS[1], ARGV[1]) then return {'cold'} end
local now, is_later = latest(KEYS[2], amount(ARGV[2], 'now'))
local request, kept_ms = ARGV[3], amount(ARGV[5], 'kept_ms')
local n_attempts, n_spend = tonumber(ARGV[6]), tonumber(ARGV[7])
local record = redis.call('HMGET', KEYS[4], 'state', 'hold', 'tokens', 'deadline', 'spend', 'open',
  'minute', 'prior', 'attempt', 'charged', 'overage', 'late', 'balance', 'over', 'ceiling',
  'session')
local state = record[1]
if state == 'settled' then
  return {'settled', record[10], record[11], record[12], record[13], record[16] or ''}
end

local is_late = state ~= 'open'
local hold, over = register(record[2], 'hold'), register(record[14], 'over')
local prior = register(record[8], 'prior')
local packed = record[5]
if not packed then
  local pairs_of = {}
  for i = 1, n_spend do
    pairs_of[2 * i - 1] = KEYS[FIXED_KEYS + i]
    pairs_of[2 * i] = ARGV[FIXED_ARGS + 3 * n_attempts + i]
  end
  packed = table.concat(pairs_of, ' ')
end
local rows = spend_rows(packed)
local tenant = redis.call('HMGET', KEYS[3], 'credit', 'spent', 'held', 'ends', 'posted', 'past')
local spent, held = register(tenant[2], 'spent'), register(tenant[3], 'held')
local before = noted(tenant[6])
local granted = register(tenant[1], 'credit')
local credit = granted - ended(tenant[4], tenant[5], before, spent + held, now)

-- What is set aside for this request under a limit, and what may come to it. Room counts what others
-- hold as used, so that each of them still finds what it holds.
local own = is_late and prior or hold
local function left_under(limit, used)
  if is_late then return own + math.max(limit - used, 0) end
  if over > 0 then return own + math.max(limit + over - used, 0) end
  return own
end
local left = left_under(credit, spent + held)
if over > 0 and not is_late then left = math.min(left, register(record[15], 'ceiling')) end
for _, row in ipairs(rows) do
  row.left = row.limit >= 0 and left_under(row.limit, row.spent + row.held) or MAX
  row.debit = 0
end
local entries, debit, charged, overage = {}, 0, 0, 0
for i = 1, n_attempts do
  local at = FIXED_ARGS + 3 * (i - 1)
  local charge, own_rows = amount(ARGV[at + 2], 'charge'), counted(rows, ARGV[at + 3])
  local paid = math.min(charge, left)
  for _, row in ipairs(own_rows) do paid = math.min(paid, row.left) end
  local entry = {event = ARGV[at + 1], debit = paid, overage = charge - paid,
    keys = keys_of(own_rows)}
  -- What the expiry of this attempt charged already is part of what it cost.
  if prior > 0 and cjson.decode(entry.event).attempt == tonumber(record[9]) then
    entry.debit, prior = paid - prior, 0
  end
  left, debit = left - paid, debit + entry.debit
  charged, overage = charged + paid, overage + charge - paid
  for _, row in ipairs(own_rows) do
    row.left, row.debit = row.left - paid, row.debit + entry.debit
  end
  entries[i] = entry
end
local difference = 0
if not is_late and ARGV[4] ~= '-1' then
  difference = amount(ARGV[4], 'tokens') - register(record[3], 'tokens')
end
if not is_late then held = released(held, hold) end
amount(spent + debit, 'spent')
local past = renoted(before, request, debit - (is_late and 0 or hold))
credit = granted - ended(tenant[4], tenant[5], before, spent + debit + held, now)
local session_spent = ''
for _, row in ipairs(rows) do
  if not is_late then row.held = released(row.held, hold) end
  -- A register that lost what it had, or that no limit bounds, must not keep this from being booked.
  row.spent = math.min(math.max(row.spent + row.debit, 0), MAX - 1)
  if string.sub(row.key, -8) == ':session' then session_spent = text(row.spent) end
end
local keep_ms = math.max(register(record[4], 'deadline') - now, 0) + kept_ms

-- The append comes first: it is the only write that could still fail.
for _, entry in ipairs(entries) do
  redis.call('XADD', KEYS[6], '*', 't', KEYS[3], 'e', entry.event, 'c', text(entry.debit),
    'h', text(hold), 'o', text(entry.overage), 'k', entry.keys, 'l', is_late and '1' or '0')
end
redis.call('HSET', KEYS[3], 'spent', text(spent + debit), 'held', text(held))
if past ~= '' then redis.call('HSET', KEYS[3], 'past', past) end
for _, row in ipairs(rows) do
  redis.call('HSET', row.key, 'spent', text(row.spent), 'held', text(row.held))
  if row.is_new and string.sub(row.key, -9) ~= ':lifetime' then
    redis.call('PEXPIRE', row.key, '3024000000')
  end
end
close(request, KEYS[5], record[6])
give_back(record[7], difference)
local late, balance = is_late and '1' or '0', text(credit - spent - debit - held)
redis.call('DEL', KEYS[4])
redis.call('HSET', KEYS[4], 'state', 'settled', 'charged', text(charged),
  'overage', text(overage), 'late', late, 'balance', balance, 'session', session_spent)
redis.call('PEXPIRE', KEYS[4], text(keep_ms))
if is_later then redis.call('SET', KEYS[2], text(now)) end
return {'settled', text(charged), text(overage), late, balance, session_spent}
