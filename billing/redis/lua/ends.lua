-- Shared by the scripts that know credit which ends; behind `common.lua`.

-- The time inside a request's id (a UUIDv7), in milliseconds.
local function admitted(request)
  return tonumber(string.sub(request, 1, 8) .. string.sub(request, 10, 13), 16)
end

-- Per moment at which credit of a tenant begins or ends: what requests of before it have spent and
-- hold.
local function noted(past)
  if not past or past == '' then return {} end
  local parts, before = split(past), {}
  for i = 1, #parts, 2 do before[parts[i]] = whole(parts[i + 1], 'past') end
  return before
end

-- The first hold after a moment notes what those of before it have spent and hold.
local function note(before, posted, used, now)
  if not posted or posted == '' then return end
  local parts = split(posted)
  for i = 1, #parts, 2 do
    if whole(parts[i], 'moment') <= now then before[parts[i]] = before[parts[i]] or used end
  end
end

-- Credit that has ended and is not taken back yet: what of it requests of before its end neither
-- spend nor hold. `ends`: per credit from when and until when it pays, and what was left; `posted`:
-- per moment the debits that this was reckoned with. `billing/credit/credit_ends.py` has the same arithmetic.
local function ended(ends, posted, before, used, now)
  if not ends or ends == '' then return 0 end
  local parts, pots, lost = split(ends), {}, 0
  for i = 1, #parts, 3 do
    pots[#pots + 1] = {from = whole(parts[i], 'from'), till = whole(parts[i + 1], 'until'),
      left = amount(parts[i + 2], 'left')}
  end
  parts = split(posted)
  local since, pending
  for i = 1, #parts, 2 do
    local at = whole(parts[i], 'moment')
    if at > now then break end
    local due = (before[parts[i]] or used) - amount(parts[i + 1], 'posted')
    local rest = math.max(due - (pending or 0), 0)
    for _, pot in ipairs(pots) do
      if since and pot.from <= since and at <= pot.till then
        local paid = math.min(pot.left, rest)
        pot.left, rest = pot.left - paid, rest - paid
      end
    end
    since, pending = at, due
  end
  for _, pot in ipairs(pots) do
    if pot.till <= now then lost = lost + pot.left end
  end
  return lost
end

-- The notes after a request's part of them has changed by this.
local function renoted(before, request, difference)
  if not next(before) then return '' end
  local at = difference ~= 0 and admitted(request)
  local packed = {}
  for last, nano in pairs(before) do
    if at and at < tonumber(last) then before[last] = math.max(nano + difference, 0) end
    packed[#packed + 1] = last .. ' ' .. text(before[last])
  end
  return table.concat(packed, ' ')
end
