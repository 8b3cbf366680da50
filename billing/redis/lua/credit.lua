-- Write a tenant's credit, what of it ends, and its status, unless something newer is known already.
-- KEYS: tenant. ARGV: credit version status, and where some of it ends: ends posted (as `ended`
-- reads them) now late_ms. A grant that is told later than that has let requests pass that it pays
-- for, and then notes only what is posted as of before it.
local credit, version = whole(ARGV[1], 'credit'), amount(ARGV[2], 'version')
local row = redis.call('HMGET', KEYS[1], 'version', 'past', 'spent', 'held')
if row[1] and register(row[1], 'version') > version then return {'older'} end
local posted, before, kept = split(ARGV[5]), noted(row[2]), {}
local used = register(row[3], 'spent') + register(row[4], 'held')
for i = 1, #posted, 2 do
  local at, now = whole(posted[i], 'moment'), amount(ARGV[6], 'now')
  kept[posted[i]] = before[posted[i]]
  for from in string.gmatch(ARGV[4], '(%S+) %S+ %S+') do
    if from == posted[i] and at <= now and not kept[from] then
      kept[from] = now - at <= amount(ARGV[7], 'late_ms') and used or amount(posted[i + 1], 'posted')
    end
  end
end
redis.call('HSET', KEYS[1], 'credit', text(credit), 'version', text(version), 'status', ARGV[3],
  'ends', ARGV[4] or '', 'posted', ARGV[5] or '', 'past', renoted(kept, '', 0))
return {'written'}
