-- Debit what a request cost, release its hold, and append its usage events: one step.
-- With an open hold the tenant pays at most the hold, and beyond it, up to the ceiling, what its
-- overdraft leaves room for; without one, at most the free headroom.
local known = call('MGET', epoch_key, clock_key)
if is_cold(known[1], epoch) then return cold() end
local now, is_later = latest(known[2], now_ms)
local record = call('HMGET', hold_key, 'state', 'hold', 'tokens', 'deadline', 'spend', 'open',
  'minute', 'prior', 'attempt', 'charged', 'overage', 'late', 'balance', 'over', 'ceiling',
  'session')
local state = record[1]
if state == 'settled' then
  return settled{charged_nano = record[10], overage_nano = record[11], late = record[12] == '1',
    balance_nano = record[13], session_nano = record[16] ~= '' and record[16]}
end

local is_late = state ~= 'open'
local hold, over = register(record[2], 'hold'), register(record[14], 'over')
local prior = register(record[8], 'prior')
local packed = record[5]
if not packed then
  local pairs_of = {}
  for i, cap in ipairs(told_caps()) do
    pairs_of[2 * i - 1], pairs_of[2 * i] = cap.key, text(cap.limit_nano)
  end
  packed = table.concat(pairs_of, ' ')
end
local rows = spend_rows(packed)
local tenant = call('HMGET', tenant_key, 'credit', 'spent', 'held', 'ends', 'posted', 'past')
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
  row.left = row.limit >= 0 and left_under(row.limit, row.spent + row.held) or REGISTER_MAX
  row.debit = 0
end
local entries, debit, charged, overage = {}, 0, 0, 0
for i, attempt in ipairs(told_attempts()) do
  local charge, own_rows = attempt.charge_nano, counted(rows, attempt.not_in)
  local paid = math.min(charge, left)
  for _, row in ipairs(own_rows) do paid = math.min(paid, row.left) end
  local entry = {event = attempt.event, debit = paid, overage = charge - paid,
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
if not is_late and tokens then difference = tokens - register(record[3], 'tokens') end
if not is_late then held = released(held, hold) end
amount(spent + debit, 'spent')
local past = renoted(before, request, debit - (is_late and 0 or hold))
credit = granted - ended(tenant[4], tenant[5], before, spent + debit + held, now)
local session_spent
for _, row in ipairs(rows) do
  if not is_late then row.held = released(row.held, hold) end
  -- A register that lost what it had, or that no limit bounds, must not keep this from being booked.
  row.spent = math.min(math.max(row.spent + row.debit, 0), REGISTER_MAX - 1)
  if string.sub(row.key, -#SESSION) == SESSION then session_spent = row.spent end
end
local keep_ms = math.max(register(record[4], 'deadline') - now, 0) + kept_ms

-- The append comes first: it is the only write that could still fail.
for _, entry in ipairs(entries) do
  call('XADD', stream_key, '*', 't', tenant_key, 'e', entry.event, 'c', text(entry.debit),
    'h', text(hold), 'o', text(entry.overage), 'k', entry.keys, 'l', is_late and '1' or '0')
end
call('HSET', tenant_key, 'spent', text(spent + debit), 'held', text(held))
if past ~= '' then call('HSET', tenant_key, 'past', past) end
for _, row in ipairs(rows) do
  call('HSET', row.key, 'spent', text(row.spent), 'held', text(row.held))
  if row.is_new and string.sub(row.key, -#LIFETIME) ~= LIFETIME then
    call('PEXPIRE', row.key, text(cap_kept_ms))
  end
end
close(request, leases_key, record[6])
give_back(record[7], difference)
local balance = credit - spent - debit - held
call('DEL', hold_key)
call('HSET', hold_key, 'state', 'settled', 'charged', text(charged),
  'overage', text(overage), 'late', is_late and '1' or '0', 'balance', text(balance),
  'session', session_spent and text(session_spent) or '')
call('PEXPIRE', hold_key, text(keep_ms))
if is_later then call('SET', clock_key, text(now)) end
return settled{charged_nano = charged, overage_nano = overage, late = is_late,
  balance_nano = balance, session_nano = session_spent}
