"""The atomic steps of shared limits, as Lua for Redis.

Keys: first the sorted set of live processes (score: until when), then those of
the meters, in the order in which the argument names them. A rate is a string:
the moment its bucket is full. A room is a hash: how many each process has
inside. A purse is a hash, by the first letter of its fields: `L` what a ledger
had at first, `S` and `E` what a process has spent since (earlier, and since it
last came back), `H` what it holds for requests under way, `G` under which
generation of `L` it counts. What a process has inside counts while it is alive,
and is swept by whoever comes next. What it held of a purse when it died counts
as spent, since its calls may be billed for as much. All moments are those
of Redis itself.
"""

from __future__ import annotations

_COMMON = """
local a = cmsgpack.unpack(ARGV[1])

local function clock()
  local t = redis.call('TIME')
  return tonumber(t[1]) - 1700000000 + tonumber(t[2]) / 1e6
end

local function add(key, field, amount)
  return tonumber(redis.call('HINCRBY', key, field, string.format('%.0f', amount)))
end

local function keep_full_at(key, full_at, now)
  if full_at > now then
    local ms = math.ceil((full_at - now) * 1000) + 1000
    redis.call('SET', key, string.format('%.9f', full_at), 'PX', string.format('%.0f', ms))
  else
    redis.call('DEL', key)
  end
end

local function live_ones(now)
  local found = {}
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], now, '+inf')) do
    found[name] = true
  end
  return found
end

local function totals(key, live, is_money)
  local spent, held = 0, 0
  local all = redis.call('HGETALL', key)
  for i = 1, #all, 2 do
    local kind = string.sub(all[i], 1, 1)
    if kind == 'H' then
      if live[string.sub(all[i], 2)] then
        held = held + tonumber(all[i + 1])
      else
        redis.call('HDEL', key, all[i])
        if is_money then
          -- Under its name, so that it takes it back if it was taken for dead.
          add(key, 'E' .. string.sub(all[i], 2), all[i + 1])
          spent = spent + tonumber(all[i + 1])
        end
      end
    elseif kind ~= 'G' then
      spent = spent + tonumber(all[i + 1])
    end
  end
  return spent, held
end
"""

_TAKE = """
local now = clock()
local until_when = redis.call('ZSCORE', KEYS[1], a.me)
if not until_when or tonumber(until_when) < now then
  return cmsgpack.pack({'unknown'})
end
local rooms_at = 1 + #a.paces
local purses_at = rooms_at + #a.rooms

local missing = {}
for i = 1, #a.purses do
  if redis.call('HEXISTS', KEYS[purses_at + i], 'G' .. a.ledger) == 0 then
    missing[#missing + 1] = i - 1
  end
end
if #missing > 0 then
  return cmsgpack.pack({'unseeded', missing})
end

local ahead = {}
for i = 1, #a.paces do
  local full_at = tonumber(redis.call('GET', KEYS[1 + i]) or 0)
  ahead[i] = math.max(full_at - now, 0)
end

local over, known = {}, {}
local live = live_ones(now)
for i, purse in ipairs(a.purses) do
  local amount, most, is_hard = purse[1], purse[2], purse[3]
  local spent, held = totals(KEYS[purses_at + i], live, true)
  known[i] = spent
  if spent + held + amount > most then
    if is_hard then
      local wait = spent + amount <= most and -1 or -2
      return cmsgpack.pack({'purse', i - 1, wait, ahead})
    end
    over[#over + 1] = i - 1
  end
end
for i, size in ipairs(a.rooms) do
  local _, inside = totals(KEYS[rooms_at + i], live, false)
  if inside >= size then
    return cmsgpack.pack({'room', i - 1, -1, ahead})
  end
end
local worst, longest = 0, 0
for i, pace in ipairs(a.paces) do
  local amount, per_minute = pace[1], pace[2]
  local wait = ahead[i] + amount * 60 / per_minute - 60
  if amount > per_minute then
    wait = math.huge
  end
  if wait > 1e-6 and wait > longest then
    worst, longest = i, wait
  end
end
if worst > 0 then
  return cmsgpack.pack({'pace', worst - 1, longest == math.huge and -2 or longest, ahead})
end

for i, pace in ipairs(a.paces) do
  ahead[i] = ahead[i] + pace[1] * 60 / pace[2]
  keep_full_at(KEYS[1 + i], now + ahead[i], now)
end
for i = 1, #a.rooms do
  add(KEYS[rooms_at + i], 'H' .. a.me, 1)
  redis.call('EXPIRE', KEYS[rooms_at + i], 86400)
end
for i, purse in ipairs(a.purses) do
  add(KEYS[purses_at + i], 'H' .. a.me, purse[1])
end
return cmsgpack.pack({'taken', over, 0, ahead, known})
"""

_SETTLE = """
if not redis.call('ZSCORE', KEYS[1], a.me) then
  return 0
end
local now = clock()
local rooms_at = 1 + #a.paces
local purses_at = rooms_at + #a.rooms
for i, pace in ipairs(a.paces) do
  local full_at = math.max(tonumber(redis.call('GET', KEYS[1 + i]) or 0), now)
  keep_full_at(KEYS[1 + i], full_at + pace[1] * 60 / pace[2], now)
end
for i = 1, #a.rooms do
  if add(KEYS[rooms_at + i], 'H' .. a.me, -1) <= 0 then
    redis.call('HDEL', KEYS[rooms_at + i], 'H' .. a.me)
  end
end
for i, purse in ipairs(a.purses) do
  local key = KEYS[purses_at + i]
  if redis.call('HEXISTS', key, 'G' .. a.ledger) == 1 then
    if add(key, 'H' .. a.me, -purse[1]) <= 0 then
      redis.call('HDEL', key, 'H' .. a.me)
    end
    add(key, 'E' .. a.me, purse[2])
  end
end
return 1
"""

_SEED = """
local key = KEYS[2]
if redis.call('HSETNX', key, 'G' .. a.ledger, a.generation) == 1 then
  add(key, 'L' .. a.ledger, a.spent)
  if a.held > 0 then
    add(key, 'H' .. a.me, a.held)
  end
  if a.until_when > 0 then
    redis.call('EXPIREAT', key, string.format('%.0f', a.until_when))
  end
end
return redis.call('HGET', key, 'G' .. a.ledger)
"""

# Who comes back under a new name says what it holds; its old name is good for nothing any more.
_REGISTER = """
local now = clock()
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if a.before ~= '' then
  redis.call('ZREM', KEYS[1], a.before)
end
redis.call('ZADD', KEYS[1], now + a.lease, a.me)
local generations = {}
for i, purse in ipairs(a.purses) do
  local key = KEYS[1 + i]
  local found = redis.call('HGET', key, 'G' .. a.ledger)
  generations[i] = found or ''
  if found then
    redis.call('HDEL', key, 'H' .. a.before, 'E' .. a.before)
    if purse[3] > 0 then
      redis.call('HSET', key, 'H' .. a.me, string.format('%.0f', purse[3]))
    end
    if found == purse[1] then
      redis.call('HSET', key, 'S' .. a.run, string.format('%.0f', purse[2]))
    end
  end
end
for i, inside in ipairs(a.rooms) do
  local key = KEYS[1 + #a.purses + i]
  redis.call('HDEL', key, 'H' .. a.before)
  if inside > 0 then
    redis.call('HSET', key, 'H' .. a.me, inside)
    redis.call('EXPIRE', key, 86400)
  end
end
return cmsgpack.pack(generations)
"""

_BEAT = """
local until_when = redis.call('ZSCORE', KEYS[1], a.me)
local now = clock()
if not until_when or tonumber(until_when) < now then
  return 0
end
redis.call('ZADD', KEYS[1], now + a.lease, a.me)
return 1
"""

SCRIPTS = {
    name: _COMMON + text
    for name, text in (
        ("take", _TAKE),
        ("settle", _SETTLE),
        ("seed", _SEED),
        ("register", _REGISTER),
        ("beat", _BEAT),
    )
}
