-- What accounts of quotas have spent, by slots of time: who asks is granted what is left, many accounts in one call.
--
-- The clock is this server's. `quota_ledger.py` does the same in Python; both are held to the same stories.
--
-- KEYS   1 epoch  2, 3 account and index of the first row  4, 5 of the second ...
--        or, where a list is asked for: 2 index
-- ARGV   1 one MessagePack array: version, worker, epoch to begin, rows, most members to list (0: none)
--          row      {period, amounts, warn, seq, told, need, ahead, raise, member, life, ended}
--          period   {0, start of the slot before, of this, of the next, its end} or {1, width, length}; all in ms
--          amounts  most of each kind; -1: not counted;  warn: share in thousandths, 0: never
--          told     {slot, granted of each kind} ...: what this worker was granted in it so far, whatever is kept
--          life     of the account at the worker: it has a register for each;  ended: 1 where it will not be heard again
--          raise    {} or {order, more of each kind}
-- answer one MessagePack array: version, epoch, now, rows, members
--          row      {status, slot, its end, when enough is free, warned, granted x5, used x5, raised x5}
--          status   0 granted  1 not all that is needed  2 the boundaries do not hold `now`  3 an old question
--
-- An account is a hash of slots, named by their start: "used x5 raised x5 warned orders;worker seq granted x5;...".
-- A worker's register is replaced by one with a higher seq, so that saying it again changes nothing. There may be
-- thousands: none but that of who asks is read. Each raise counts once, whichever of the slots has it.

local VERSION, KINDS = 1, 5
local EPOCH_TTL, KEPT = 86400000 * 400, 86400000 * 35 -- milliseconds
local ROOM = 10 -- times what is wanted ahead, and what is needed now, must be left: else nothing is given ahead
local MOST = 2 ^ 53 - 1
local MOST_MEMBERS = 100000
local floor, min, max, match, gmatch = math.floor, math.min, math.max, string.match, string.gmatch
local find, sub = string.find, string.sub

local time = redis.call('TIME')
local now = time[1] * 1000 + floor(time[2] / 1000)
local request = cmsgpack.unpack(ARGV[1])
if request[1] ~= VERSION then
  return redis.error_reply('FASTGW this is version ' .. VERSION .. ' of the script for quotas')
end
local worker
local epoch = redis.call('GET', KEYS[1])
if not epoch then
  epoch = request[3]
  redis.call('SET', KEYS[1], epoch, 'PX', string.format('%.0f', EPOCH_TTL))
end

-- What is kept may have been written by a stranger.
local function number(digits) return min(MOST, tonumber(digits or 0)) end

local HEAD = '^' .. string.rep('(%d+) ', 2 * KINDS + 1) .. '([%d,-]+)'

local function read(text)
  local words = { match(text, HEAD) }
  local slot = { used = {}, raised = {}, warned = number(words[11]), orders = words[12] or '-' }
  for kind = 1, KINDS do
    slot.used[kind], slot.raised[kind] = number(words[kind]), number(words[kind + KINDS])
  end
  slot.registers = match(text, ';.*') or ''
  return slot
end

local function digits(list)
  local parts = {}
  for at, value in ipairs(list) do parts[at] = string.format('%.0f', value) end
  return table.concat(parts, ' ')
end

local function written(slot)
  return digits(slot.used) .. ' ' .. digits(slot.raised) .. string.format(' %.0f ', slot.warned) .. slot.orders .. slot.registers
end

-- The register of who asks, and where it stands; nil where it has none.
local function register_of(slot)
  local from, to = find(slot.registers, ';' .. worker .. ' ', 1, true)
  if not from then return nil end
  local numbers, register = match(slot.registers, '^[%d ]*', to + 1), {}
  for word in gmatch(numbers, '%d+') do register[#register + 1] = number(word) end
  for place = #register + 1, KINDS + 1 do register[place] = 0 end
  return register, from, to + #numbers
end

local function keep_register(slot, register)
  local _, from, to = register_of(slot)
  local text = register and ';' .. worker .. ' ' .. digits(register) or ''
  if from then
    slot.registers = sub(slot.registers, 1, from - 1) .. text .. sub(slot.registers, to + 1)
  else
    slot.registers = slot.registers .. text
  end
  slot.dirty = true
end

local function slots_of(key)
  local slots, kept = {}, redis.call('HGETALL', key)
  for at = 1, #kept, 2 do
    if match(kept[at], '^%d+$') then slots[tonumber(kept[at])] = read(kept[at + 1]) end
  end
  return slots
end

local function slot_at(slots, start)
  if not slots[start] then slots[start] = read('0 0 0 0 0 0 0 0 0 0 0 -') end
  return slots[start]
end

local function tell(slot, seq, granted)
  local kept, new = register_of(slot) or { 0, 0, 0, 0, 0, 0 }, { seq }
  if seq <= kept[1] then return end
  for kind = 1, KINDS do
    slot.used[kind] = max(0, slot.used[kind] + granted[kind] - kept[kind + 1])
    new[kind + 1] = granted[kind]
  end
  keep_register(slot, new)
end

local function heeded(slots, order)
  for _, slot in pairs(slots) do
    if find(',' .. slot.orders .. ',', order, 1, true) then return true end
  end
  return false
end

-- Start and end of the slot that holds `now`, and from which start on slots count.
local function slot_now(period)
  if period[1] == 1 then
    local start = now - now % period[2]
    return start, start + period[2], now - period[3] - period[2] + 1
  end
  for at = 2, 4 do
    if period[at] <= now and now < period[at + 1] then return period[at], period[at + 1], period[at] end
  end
end

local function sums(slots, first, last)
  local used, raised, warned, starts = { 0, 0, 0, 0, 0 }, { 0, 0, 0, 0, 0 }, false, {}
  for start, slot in pairs(slots) do
    if start >= first and start <= last then
      starts[#starts + 1] = start
      warned = warned or slot.warned > 0
      for kind = 1, KINDS do
        used[kind], raised[kind] = used[kind] + slot.used[kind], raised[kind] + slot.raised[kind]
      end
    end
  end
  table.sort(starts)
  return used, raised, warned, starts
end

-- When slots that leave the window have freed what is lacking.
local function freed(slots, starts, lacking, period)
  for _, start in ipairs(starts) do
    local enough = true
    for kind = 1, KINDS do
      lacking[kind] = lacking[kind] - slots[start].used[kind]
      if lacking[kind] > 0 then enough = false end
    end
    if enough then return start + period[2] + period[3] end
  end
  return now + period[3]
end

-- Slots of the window are kept, and as long a stretch before it: a clock that goes back finds what it left.
local function prune(key, slots, first, period)
  local newest = -1
  for start in pairs(slots) do
    if start < first and start > newest then newest = start end
  end
  local oldest = newest - (period[1] == 1 and period[3] or 0)
  for start in pairs(slots) do
    if start < oldest then
      redis.call('HDEL', key, string.format('%.0f', start))
      slots[start] = nil
    end
  end
end

local function kept(key, slots, lasts)
  local any = false
  for start, slot in pairs(slots) do
    if slot.dirty then
      redis.call('HSET', key, string.format('%.0f', start), written(slot))
      any = true
    end
  end
  if any then redis.call('PEXPIRE', key, string.format('%.0f', lasts)) end
  return any
end

local function indexed(index, member, used, most, lasts)
  local share = 0
  for kind = 1, KINDS do
    if most[kind] > 0 then share = max(share, used[kind] / most[kind]) end
  end
  redis.call('ZADD', index, string.format('%.6f', share), member)
  redis.call('ZREMRANGEBYRANK', index, 0, -MOST_MEMBERS - 1)
  redis.call('PEXPIRE', index, string.format('%.0f', lasts))
end

local function account(key, index, row)
  local period, amounts, warn, seq, need, ahead, order = row[1], row[2], row[3], row[4], row[6], row[7], row[8]
  worker = request[2] .. row[10]
  local start, ends, first = slot_now(period)
  if not start then return { 2, 0, now, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 } end
  local slots = slots_of(key)
  local before = slots[start] and register_of(slots[start])
  local stale = before and before[1] >= seq
  for _, told in ipairs(row[5]) do
    tell(slot_at(slots, told[1]), seq, { told[2], told[3], told[4], told[5], told[6] })
  end
  for _, slot in pairs(row[11] == 1 and slots or {}) do
    if register_of(slot) then keep_register(slot, nil) end
  end
  local current = slot_at(slots, start)
  if order[1] and not heeded(slots, string.format(',%.0f,', order[1])) then
    current.orders, current.dirty = current.orders .. string.format(',%.0f', order[1]), true
    for kind = 1, KINDS do current.raised[kind] = current.raised[kind] + order[kind + 1] end
  end
  local used, raised, warned, starts = sums(slots, first, start)
  local granted, lacking, most, status, any = { 0, 0, 0, 0, 0 }, { 0, 0, 0, 0, 0 }, {}, stale and 3 or 0, false
  for kind = 1, KINDS do
    most[kind] = amounts[kind] + raised[kind]
    if amounts[kind] >= 0 and not stale then
      local room = max(0, most[kind] - used[kind])
      local got = min(need[kind], room)
      if got < need[kind] then
        status, lacking[kind] = 1, used[kind] + need[kind] - most[kind]
      elseif ahead[kind] > 0 and room - got >= ROOM * max(ahead[kind], need[kind]) then
        got = got + ahead[kind]
      end
      granted[kind], any = got, any or got > 0
    end
  end
  if any then
    local mine = register_of(current) or { seq, 0, 0, 0, 0, 0 }
    mine[1] = seq
    for kind = 1, KINDS do
      mine[kind + 1] = mine[kind + 1] + granted[kind]
      current.used[kind], used[kind] = current.used[kind] + granted[kind], used[kind] + granted[kind]
    end
    keep_register(current, mine)
  end
  local tells = 0
  if warn > 0 and not warned then
    for kind = 1, KINDS do
      if amounts[kind] > 0 and used[kind] * 1000 >= warn * most[kind] then tells = 1 end
    end
    if tells == 1 then current.warned, current.dirty = 1, true end
  end
  prune(key, slots, first, period)
  local lasts = ends - now + KEPT + (period[1] == 1 and period[3] or 0)
  if kept(key, slots, lasts) then
    for kind = 1, KINDS do if amounts[kind] < 0 then most[kind] = 0 end end
    indexed(index, row[9], used, most, lasts)
  end
  local free = 0
  if status == 1 then free = period[1] == 1 and freed(slots, starts, lacking, period) or ends end
  local answer = { status, start, ends, free, tells }
  for kind = 1, KINDS do answer[5 + kind], answer[10 + kind], answer[15 + kind] = granted[kind], used[kind], raised[kind] end
  return answer
end

local answers, members = {}, {}
for at, row in ipairs(request[4]) do answers[at] = account(KEYS[2 * at], KEYS[2 * at + 1], row) end
if request[5] > 0 then members = redis.call('ZREVRANGE', KEYS[2], 0, request[5] - 1) end
return cmsgpack.pack({ VERSION, epoch, now, answers, members })
