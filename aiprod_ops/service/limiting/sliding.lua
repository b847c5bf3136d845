-- Decides many requests at once, by Redis' own clock. The calculation is that of domain/quotas.py.
--
-- KEYS[i]: what one caller has spent: MessagePack of one list for each quota, {slot, count, slot, count, ...}, oldest
-- first. ARGV[1]: MessagePack of {slots of a window, policies, one {policy, costs of requests, what was let through
-- without us, of each quota} for each key}; a policy is {lengths of a slot in ms, limits}, named by its place, from 1.
-- Returns MessagePack of {now in ms, one list for each key of one list for each request: {whether it is allowed, ms to
-- wait (-1: for ever), and for each quota what remains and ms until there is more}}.
local slots, policies, asked = unpack(cmsgpack.unpack(ARGV[1]))
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

-- What is not over, its sum, and whether it had slots of the future, of a clock that was set back: they count as the
-- present one, and that has to be written down, or they would do so for ever.
local function kept(stored, lengths)
  local old, all, totals, folded = stored and cmsgpack.unpack(stored) or {}, {}, {}, false
  for q, length in ipairs(lengths) do
    local current, list, n, total = math.floor(now / length), {}, 0, 0
    local spent = old[q] or {}
    for p = 1, #spent, 2 do
      local slot, count = spent[p], spent[p + 1]
      if slot >= current - slots then
        if slot > current then slot, folded = current, true end
        if n > 0 and list[n - 1] == slot then
          list[n] = list[n] + count
        else
          list[n + 1], list[n + 2], n = slot, count, n + 2
        end
        total = total + count
      end
    end
    all[q], totals[q] = list, total
  end
  return all, totals, folded
end

local function gone(slot, length)
  return (slot + slots + 1) * length - now
end

local function wait(list, total, length, limit, cost)
  if cost > limit then return -1 end
  local over = total + cost - limit
  if cost == 0 or over <= 0 then return 0 end
  for p = 1, #list, 2 do
    over = over - list[p + 1]
    if over <= 0 then return gone(list[p], length) end
  end
end

local function add(list, length, count)
  local current, n = math.floor(now / length), #list
  if n > 0 and list[n - 1] == current then
    list[n] = list[n] + count
  else
    list[n + 1], list[n + 2] = current, count
  end
end

local function decide(key, lengths, limits, costs, owed)
  local stored = redis.pcall('GET', key)
  if type(stored) ~= 'string' then stored = nil end
  -- What somebody else wrote there must not stop the others' decisions.
  local readable, all, totals, changed = pcall(kept, stored, lengths)
  if not readable then all, totals, changed = kept(nil, lengths) end
  for q, count in ipairs(owed) do
    if count > 0 then
      changed = true
      add(all[q], lengths[q], count)
      totals[q] = totals[q] + count
    end
  end
  local answers = {}
  for c, cost in ipairs(costs) do
    local longest, never = 0, false
    for q, list in ipairs(all) do
      local found = wait(list, totals[q], lengths[q], limits[q], cost)
      if found < 0 then never = true elseif found > longest then longest = found end
    end
    if never then longest = -1 end
    if longest == 0 and cost > 0 then
      changed = true
      for q, list in ipairs(all) do
        add(list, lengths[q], cost)
        totals[q] = totals[q] + cost
      end
    end
    local answer = {longest == 0, longest}
    for q, list in ipairs(all) do
      answer[2 * q + 1] = math.max(0, limits[q] - totals[q])
      answer[2 * q + 2] = list[1] and gone(list[1], lengths[q]) or 0
    end
    answers[c] = answer
  end
  if changed then
    local longest = 0
    for _, length in ipairs(lengths) do longest = math.max(longest, length) end
    redis.call('SET', key, cmsgpack.pack(all), 'PX', longest * (slots + 1))
  end
  return answers
end

local decisions = {}
for i, key in ipairs(KEYS) do
  local policy = policies[asked[i][1]]
  decisions[i] = decide(key, policy[1], policy[2], asked[i][2], asked[i][3])
end
return cmsgpack.pack({now, decisions})
