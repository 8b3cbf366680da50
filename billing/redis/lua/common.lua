-- Shared by every script; put in front of it when it is loaded, before the answers that it may give
-- and the locals that its message becomes (see `billing/redis/scripts.py`).
-- Numbers here are doubles: amounts stay below 2^52, and become text by %.0f only.
-- A script reads and validates all it needs before its first write.

local call, format = redis.call, string.format

local function text(number)
  return format('%.0f', number)
end

local function whole(value, name)
  local number = tonumber(value)
  if number == nil or number % 1 ~= 0 or number >= REGISTER_MAX or number <= -REGISTER_MAX then
    beyond(name)
  end
  return number
end

local function amount(value, name)
  local number = whole(value, name)
  if number < 0 then error('negative ' .. name) end
  return number
end

-- A register that does not exist yet is zero.
local function register(value, name)
  if not value then return 0 end
  return whole(value, name)
end

local function is_cold(known, epoch)
  return epoch == '' or known ~= epoch
end

-- Time never goes back, whatever the caller's clock says.
local function latest(clock, now)
  local seen = tonumber(clock or '0')
  if seen > now then return seen, false end
  return now, seen < now
end

-- A lease by a clock that is behind the latest one seen lasts as long by that one: a clock that ran
-- ahead for a moment must not end every lease that is given out after it.
local function lengthened(lease, said, now)
  return lease + now - said
end

local function split(packed)
  local parts = {}
  for part in string.gmatch(packed or '', '%S+') do parts[#parts + 1] = part end
  return parts
end
