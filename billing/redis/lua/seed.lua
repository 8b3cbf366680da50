-- Begin (or set right) one spend register: what is posted, plus what is debited and not posted.
-- KEYS: epoch stream register. ARGV: epoch last_posted_entry nano pico lasts_ms(0 = for good).
if is_cold(KEYS[1], ARGV[1]) then return {'cold'} end
local spent, pico = whole(ARGV[3], 'nano'), amount(ARGV[4], 'pico')
local lasts_ms = amount(ARGV[5], 'lasts_ms')
for _, entry in ipairs(redis.call('XRANGE', KEYS[2], '(' .. ARGV[2], '+')) do
  local fields = entry[2]
  local debit, counts = 0, false
  for i = 1, #fields, 2 do
    if fields[i] == 'c' then debit = whole(fields[i + 1], 'debit') end
    if fields[i] == 'k' then
      for _, key in ipairs(split(fields[i + 1])) do counts = counts or key == KEYS[3] end
    end
  end
  if counts then spent = spent + debit end
end
redis.call('HSET', KEYS[3], 'spent', text(spent), 'pico', text(pico))
if lasts_ms > 0 then redis.call('PEXPIRE', KEYS[3], text(lasts_ms)) end
return {'seeded', text(spent)}
