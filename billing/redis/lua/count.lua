-- Count one request that costs nothing against its key's state and rates; no hold is placed.
local counters = told_minute()
local known = call('MGET', epoch_key, clock_key,
  unpack(KEYS, at_minute + 1, at_minute + n_minute))
if is_cold(known[1], epoch) then return cold() end
local now = latest(known[2], now_ms)
local refusal = barred(tenant_key, call('HGET', tenant_key, 'status'), status_key, key_id)
if refusal then return refusal end
refusal = minute_counters(counters, known, 0, now)
if refusal then return refusal end
count_minutes(counters, minute_goes_at_ms, now_ms)
return counted()
