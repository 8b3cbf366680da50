-- Shared by the scripts that admit a request and count it in its minute; behind `common.lua`.

-- Why nobody of a suspended tenant, or with a revoked key, is let in; nil where neither is so.
local function barred(tenant_key, tenant_status, status_key, key_id)
  if tenant_status == 'suspended' then
    return refused{code = 'tenant_suspended', key = tenant_key, limit = 0, left = 0,
      retry_after_ms = 0}
  end
  if call('HGET', status_key, text(key_id)) == 'revoked' then
    return refused{code = 'key_revoked', key = status_key, limit = 0, left = 0, retry_after_ms = 0}
  end
end

-- How long from a caller's now until its then; never zero, which would be an error or a deletion.
local function lasting(goes_at, now)
  return text(math.max(goes_at - now, LASTS_MS_MIN))
end

-- Whether the minute's counters let this many tokens pass, or why one refuses; the second result
-- are those that a settle gives back to. `known` has them behind its first two.
local function minute_counters(counters, known, tokens, now)
  local returning = {}
  for i, row in ipairs(counters) do
    local used, wanted = register(known[2 + i], 'counter'), row.of_tokens and tokens or 1
    if used + wanted > row.limit then
      return refused{code = 'rate_limited', key = row.key, limit = row.limit,
        left = math.max(row.limit - used, 0), retry_after_ms = MS_PER_MINUTE - now % MS_PER_MINUTE}
    end
    row.used = used + wanted
    if row.of_tokens then returning[#returning + 1] = row.key end
  end
  return nil, returning
end

local function count_minutes(counters, goes_at_ms, now_ms)
  if not counters[1] then return end
  local lasts_ms = lasting(goes_at_ms, now_ms)
  for _, row in ipairs(counters) do
    call('SET', row.key, text(row.used), 'PX', lasts_ms)
  end
end
