-- Write a tenant's credit and status, unless something newer is known already.
-- KEYS: tenant. ARGV: credit version status.
local credit, version = whole(ARGV[1], 'credit'), amount(ARGV[2], 'version')
local known = redis.call('HGET', KEYS[1], 'version')
if known and register(known, 'version') > version then return {'older'} end
redis.call('HSET', KEYS[1], 'credit', text(credit), 'version', text(version), 'status', ARGV[3])
return {'written'}
