-- Read registers beside what they must equal, at one instant: what is debited and not yet posted,
-- and what open holds hold. Writes nothing; its cost grows with both.
if is_cold(call('GET', epoch_key), epoch) then return cold() end
local unread, open = {}, {}
for _, entry in ipairs(call('XRANGE', stream_key, '(' .. last_posted, '+')) do
  local field = {}
  for i = 1, #entry[2], 2 do field[entry[2][i]] = entry[2][i + 1] end
  local debit = whole(field.c, 'debit')
  unread[field.t] = (unread[field.t] or 0) + debit
  for _, key in ipairs(split(field.k)) do unread[key] = (unread[key] or 0) + debit end
end
for _, request in ipairs(call('ZRANGE', leases_key, 0, -1)) do
  local record = call('HMGET', hold_prefix .. request, 'state', 'hold', 'tenant', 'spend')
  if record[1] == 'open' then
    local hold, parts = amount(record[2], 'hold'), split(record[4])
    open[record[3]] = (open[record[3]] or 0) + hold
    for i = 1, #parts, 2 do open[parts[i]] = (open[parts[i]] or 0) + hold end
  end
end
local rows = {}
for i, named in ipairs(told_registers()) do
  local row = call('HMGET', named.key, 'spent', 'pico', 'held', 'credit')
  rows[i] = compared_row{exists = call('EXISTS', named.key) == 1,
    spent_nano = row[1] or 0, pico = row[2] or 0, held_nano = row[3] or 0,
    unread_nano = unread[named.key] or 0, open_nano = open[named.key] or 0,
    credit_nano = row[4] or 0}
end
return compared{rows = rows}
