-- Count one request that costs nothing against its key's state and rates; no hold is placed.
-- KEYS: epoch clock tenant keys, then minute counters. ARGV: epoch now key n_minute, then per
-- counter: amount, limit, goes_at, gives_back.
local FIXED_KEYS, FIXED_ARGS = 4, 4
if is_cold(KEYS[1], ARGV[1]) then return {'cold'} end
local said = amount(ARGV[2], 'now')
local now = latest(KEYS[2], said)
if redis.call('HGET', KEYS[3], 'status') == 'suspended' then
  return {'refused', 'tenant_suspended', KEYS[3], '0', '0', '0'}
end
if redis.call('HGET', KEYS[4], ARGV[3]) == 'revoked' then
  return {'refused', 'key_revoked', KEYS[4], '0', '0', '0'}
end
local refusal, counters = minute_counters(FIXED_KEYS, FIXED_ARGS, tonumber(ARGV[4]), now)
if refusal then return refusal end
count_minutes(counters, said)
return {'counted'}
