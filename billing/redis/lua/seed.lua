-- Begin (or set right) one spend register: what is posted, plus what is debited and not posted.
if is_cold(call('GET', epoch_key), epoch) then return cold() end
local spent = nano
for _, entry in ipairs(call('XRANGE', stream_key, '(' .. last_posted, '+')) do
  local fields = entry[2]
  local debit, counts = 0, false
  for i = 1, #fields, 2 do
    if fields[i] == 'c' then debit = whole(fields[i + 1], 'debit') end
    if fields[i] == 'k' then
      for _, key in ipairs(split(fields[i + 1])) do counts = counts or key == spend_key end
    end
  end
  if counts then spent = spent + debit end
end
call('HSET', spend_key, 'spent', text(spent), 'pico', text(pico))
if lasts_ms > 0 then call('PEXPIRE', spend_key, text(lasts_ms)) end
return seeded{spent_nano = spent}
