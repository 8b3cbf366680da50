-- Write a tenant's credit, what of it ends, and its status, unless something newer is known already.
-- A grant that is told late notes only what is posted as of before it.
local row = call('HMGET', tenant_key, 'version', 'past', 'spent', 'held')
if row[1] and register(row[1], 'version') > version then return older() end
local moments, before, kept = split(posted), noted(row[2]), {}
local used = register(row[3], 'spent') + register(row[4], 'held')
for i = 1, #moments, 2 do
  local at = whole(moments[i], 'moment')
  kept[moments[i]] = before[moments[i]]
  for from in string.gmatch(ends, '(%S+) %S+ %S+') do
    if from == moments[i] and at <= now_ms and not kept[from] then
      kept[from] = now_ms - at <= late_ms and used or amount(moments[i + 1], 'posted')
    end
  end
end
call('HSET', tenant_key, 'credit', text(credit_nano), 'version', text(version),
  'status', status, 'ends', ends, 'posted', posted, 'past', renoted(kept, '', 0))
return written()
