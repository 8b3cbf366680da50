-- Read registers beside what they must equal, at one instant: what is debited and not yet posted,
-- and what open holds hold. Writes nothing; its cost grows with both.
-- KEYS: epoch stream leases, then registers. ARGV: epoch last_posted_entry hold_prefix.
-- Answers per register: spent, pico, held, debits in unread entries, sum of open holds.
local FIXED_KEYS = 3
if is_cold(KEYS[1], ARGV[1]) then return {'cold'} end
local unread, open = {}, {}
for _, entry in ipairs(redis.call('XRANGE', KEYS[2], '(' .. ARGV[2], '+')) do
  local field = {}
  for i = 1, #entry[2], 2 do field[entry[2][i]] = entry[2][i + 1] end
  local debit = whole(field.c, 'debit')
  unread[field.t] = (unread[field.t] or 0) + debit
  for _, key in ipairs(split(field.k)) do unread[key] = (unread[key] or 0) + debit end
end
for _, request in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
  local record = redis.call('HMGET', ARGV[3] .. request, 'state', 'hold', 'tenant', 'spend')
  if record[1] == 'open' then
    local hold, parts = amount(record[2], 'hold'), split(record[4])
    open[record[3]] = (open[record[3]] or 0) + hold
    for i = 1, #parts, 2 do open[parts[i]] = (open[parts[i]] or 0) + hold end
  end
end
local answer = {'warm'}
for i = FIXED_KEYS + 1, #KEYS do
  local key = KEYS[i]
  local row = redis.call('HMGET', key, 'spent', 'pico', 'held')
  local exists = redis.call('EXISTS', key)
  answer[#answer + 1] = {tostring(exists), row[1] or '0', row[2] or '0', row[3] or '0',
    text(unread[key] or 0), text(open[key] or 0)}
end
return answer
