-- Rate limits and calls at the same time, decided where the buckets are: many checks in one call, all or nothing each.
--
-- The clock is this server's. The arithmetic is that of policy/bucket.py, step for step; both are held to the same
-- vectors.
--
-- KEYS   1 epoch  2 workers  3 resets  4... buckets
-- ARGV   1 one MessagePack array: version, worker, epoch to begin, heartbeat, rows, checks,
--          resets {text ...}, epoch that the worker knows: where it is another, nothing is decided,
--          since what it knew of is no more
--          row of a rate      {key, 1, gain, price, cap, tick, held, given back, wanted ahead}
--          row of calls       {key, 2, most, used, wanted ahead}
--          check              {row, cost, mode, row, cost, mode, ...}
--          mode               0 enforce  1 shadow  2 take in any case  3 lack at least (cost: units)
--                             4 make full (cost: number of the reset; each is heeded once)
-- answer one MessagePack array: version, epoch, workers, resets {text ...}, rows {held ...},
--          checks {place of the refusal or 0, microseconds to wait, bits of shadow refusals, lacking of each item ...}
--
-- A bucket is kept as "units stamp cap;worker held until;...": what it lacks, when it lacked that, of how much, and
-- what each worker holds of it until when; behind cap, for a while, the last reset that made it full. What is held was
-- taken from the bucket and may be spent without asking; it comes back only when it was spent, given back or has run
-- out, so bucket and leases together never exceed the whole.

local VERSION = 1
local LEASE, PERMIT, WORKER = 2000000, 4000000, 5000000 -- microseconds without a word of the worker
local MOST = 2 ^ 52 -- of anything: beyond it sums are no longer exact
local ROOM = 10 -- times what is wanted ahead must be there, else the bucket is exact
local REPEAT = 10000000 -- microseconds for which a reset is repeated to workers that have not heard of it
local RESET = 30000000 -- microseconds for which one that was heeded is remembered: longer than it is repeated
local EPOCH_TTL, SLACK = 86400000, 1000 -- milliseconds

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local request = cmsgpack.unpack(ARGV[1])
if request[1] ~= VERSION then
  return redis.error_reply('FASTGW this is version ' .. VERSION .. ' of the script')
end
local epoch = redis.call('GET', KEYS[1])
if not epoch then
  epoch = request[3]
  redis.call('SET', KEYS[1], epoch, 'PX', EPOCH_TTL)
end
if request[8] ~= '' and request[8] ~= epoch then return cmsgpack.pack({ VERSION, epoch, 0, {}, {}, {} }) end

local worker, rows, checks = request[2], request[5], request[6]
local floor, ceil, min, max, fmod = math.floor, math.ceil, math.min, math.max, math.fmod
local match, gmatch, format = string.match, string.gmatch, string.format

-- a / b rounded down. Exact: floor(a / b), and with it Lua's own %, may take a quotient for the next whole number.
local function rest(a, b)
  local left = fmod(a, b)
  return left < 0 and left + b or left
end
local function whole(a, b) return (a - rest(a, b)) / b end
local function whole_up(a, b) return -whole(-a, b) end

-- What is kept may have been written by a stranger.
local function number(text)
  local value = tonumber(text)
  return value < MOST and value or MOST
end

local states, state_of = {}, {} -- by key; by row

local function load(key)
  local name = KEYS[key]
  local state = states[name]
  if state then return state end
  state = { units = 0, stamp = now, cap = 0, held = {}, gone = 0, ended = 0, filled = 0, dirty = false }
  local kept = redis.call('GET', name)
  if kept then
    local units, stamp, cap, filled, holders = match(kept, '^(%d+) (%d+) (%d+) ?(%d*)(.*)$')
    if units then
      if filled ~= '' then state.filled = number(filled) end
      state.stamp, state.cap = number(stamp), number(cap)
      local lacking = number(units)
      state.units = lacking < state.cap and lacking or state.cap
      for who, held, till in gmatch(holders, ';(%w+) (%d+) (%d+)') do
        held, till = number(held), number(till)
        if till > now then
          -- more than it was ever given: the clock has gone back
          state.held[who] = { held, min(till, now + PERMIT) }
        else
          state.gone, state.ended = state.gone + held, max(state.ended, till)
        end
      end
    end
  end
  states[name] = state
  return state
end

local function lent(state, but)
  local sum = 0
  for who, entry in pairs(state.held) do
    if who ~= but then sum = sum + entry[1] end
  end
  return sum
end

-- What comes back until `till`; what is held meanwhile does not.
local function pass(state, row, till, held)
  local gain, price, cap, tick = row[3], row[4], row[5], row[6]
  local at, least = till - rest(till, tick), held > 0 and min(cap, held * price) or 0
  local passed = whole(at - state.stamp, tick)
  if state.units < least then state.units = least end
  if passed > 0 then
    local is_back = passed >= whole_up(state.units - least, gain)
    state.units = is_back and least or state.units - passed * gain
  end
  state.stamp = at
end

local function bring_up_to_date(state, row)
  local cap, held = row[5], lent(state)
  if state.cap == 0 then
    state.units, state.stamp, state.cap = 0, now - rest(now, row[6]), cap
    return
  end
  if state.cap ~= cap then
    state.units = min(cap, ceil(state.units / state.cap * cap))
    state.cap = cap
  end
  -- what nobody spoke of until it ran out may have been spent as late as then
  if state.gone > 0 then pass(state, row, state.ended, held + state.gone) end
  pass(state, row, now, held)
end

for at, row in ipairs(rows) do
  local state = load(row[1])
  state_of[at] = state
  if row[2] == 1 then
    local entry = state.held[worker]
    local before = entry and entry[1] or 0
    -- what it no longer holds was spent; what it gives back it must still have held
    local given = min(row[8], before)
    local held = min(row[7], before - given)
    bring_up_to_date(state, row)
    state.held[worker] = held > 0 and { held, now + LEASE } or nil
    if given > 0 then state.units = max(min(row[5], lent(state) * row[4]), state.units - given * row[4]) end
    state.dirty = true
  else
    row.used = row[4]
  end
end

local answers = {}
for at, check in ipairs(checks) do
  local refused, wait, shadow = 0, -1, 0
  for place = 1, #check / 3 do
    local at_row, cost, mode = check[place * 3 - 2], check[place * 3 - 1], check[place * 3]
    local row, state = rows[at_row], state_of[at_row]
    if mode < 2 then
      local short, time_to_wait = 0, 0
      if row[2] == 1 then
        short = state.units + cost * row[4] - row[5]
        time_to_wait = min(MOST, whole_up(short, row[3]) * row[6] - rest(now, row[6]))
      else
        short = lent(state, worker) + row.used + cost - row[3]
      end
      if short > 0 and mode == 1 then
        shadow = shadow + 2 ^ (place - 1)
      elseif short > 0 and time_to_wait > wait then
        refused, wait = place, time_to_wait
      end
    end
  end
  local answer = { refused, max(0, wait), shadow }
  for place = 1, #check / 3 do
    local at_row, cost, mode = check[place * 3 - 2], check[place * 3 - 1], check[place * 3]
    local row, state = rows[at_row], state_of[at_row]
    if row[2] == 1 then
      if mode == 3 then
        state.units = min(row[5], max(state.units, cost))
      elseif mode == 4 then
        -- what workers hold is theirs to spend still: full is what is left
        if state.filled ~= cost then state.units, state.filled = min(row[5], lent(state) * row[4]), cost end
      elseif mode == 2 then
        state.units = max(0, min(row[5], state.units + cost * row[4]))
      elseif refused == 0 and floor(shadow / 2 ^ (place - 1)) % 2 == 0 then
        state.units = state.units + cost * row[4]
      end
      answer[place + 3] = state.units
    else
      if mode == 4 then
        state.held = {}
      elseif refused == 0 and mode < 2 and floor(shadow / 2 ^ (place - 1)) % 2 == 0 then
        row.used = row.used + cost
      end
      answer[place + 3] = lent(state, worker) + row.used
    end
  end
  answers[at] = answer
end

local leases = {}
for at, row in ipairs(rows) do
  local state = state_of[at]
  local entry = state.held[worker]
  if row[2] == 1 then
    local held, wanted = entry and entry[1] or 0, row[9]
    if wanted > 0 and row[5] - state.units >= ROOM * wanted * row[4] then
      state.units = state.units + wanted * row[4]
      held = held + wanted
      state.held[worker] = { held, now + LEASE }
    end
    leases[at] = held
  else
    local room, wanted = row[3] - lent(state, worker) - row.used, row[5]
    local allotted = row.used
    if wanted > 0 and room >= ROOM * wanted then allotted = allotted + wanted end
    state.held[worker] = allotted > 0 and { allotted, now + PERMIT } or nil
    state.cap, state.dirty = 1, true
    leases[at] = allotted
  end
end

for at, row in ipairs(rows) do
  local state = state_of[at]
  if state.dirty then
    local text, latest = format('%d %d %d', state.units, state.stamp, max(1, state.cap)), 0
    if state.filled > 0 then text = text .. format(' %d', state.filled) end
    if next(state.held) then
      local parts = { text }
      for who, entry in pairs(state.held) do
        parts[#parts + 1] = format(';%s %d %d', who, entry[1], entry[2])
        latest = max(latest, entry[2] - now)
      end
      text = table.concat(parts)
    end
    local lasts = latest + (row[2] == 1 and whole_up(state.units, row[3]) * row[6] or 0)
    if state.filled > 0 then lasts = max(lasts, RESET) end
    if lasts == 0 then
      redis.call('DEL', KEYS[row[1]])
    else
      redis.call('SET', KEYS[row[1]], text, 'PX', format('%d', ceil(lasts / 1000) + SLACK))
    end
    state.dirty = false
  end
end

for _, text in ipairs(request[7]) do
  redis.call('ZADD', KEYS[3], string.format('%.0f', now + REPEAT), text)
  redis.call('PEXPIRE', KEYS[3], REPEAT / 1000 + SLACK)
end

local workers, resets = 0, {}
if request[4] == 1 then
  redis.call('PEXPIRE', KEYS[1], EPOCH_TTL)
  redis.call('ZADD', KEYS[2], string.format('%.0f', now), worker)
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('(%.0f', now - WORKER))
  redis.call('ZREMRANGEBYSCORE', KEYS[2], string.format('(%.0f', now + WORKER), '+inf')
  redis.call('PEXPIRE', KEYS[2], EPOCH_TTL)
  workers = redis.call('ZCARD', KEYS[2])
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', string.format('%.0f', now))
  resets = redis.call('ZRANGE', KEYS[3], 0, -1)
end
return cmsgpack.pack({ VERSION, epoch, workers, resets, leases, answers })
