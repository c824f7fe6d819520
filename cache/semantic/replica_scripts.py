"""The steps of the shared log of semantic answers that must happen in Redis as one, in Lua.

Events are numbered without gaps, so whoever misses one knows. `id` names this log: when
Redis has lost it, another one begins, and the numbers with it.
"""

from __future__ import annotations

from cache.stores.scripts import SCRIPTS as SHARED

_BEGIN = """
if redis.call('HSETNX', KEYS[1], 'id', ARGV[1]) == 1 then
  redis.call('HDEL', KEYS[1], 'seq')
  redis.call('DEL', KEYS[2])
end
"""

# KEYS: state, log, epochs. ARGV: a fresh id, position, most events.
# Returns the log's id, its last number, the epoch, and the events after the position.
_LOOK = (
    _BEGIN
    + """
local seq = redis.call('HGET', KEYS[1], 'seq') or '0'
local events = {}
if tonumber(seq) > tonumber(ARGV[2]) then
  local first = string.format('%.0f-0', tonumber(ARGV[2]) + 1)
  events = redis.call('XRANGE', KEYS[2], first, '+', 'COUNT', ARGV[3])
end
return {redis.call('HGET', KEYS[1], 'id'), seq, redis.call('HGET', KEYS[3], 'now') or '0', events}
"""
)

# KEYS: state, log, index, entry.
# ARGV: a fresh id, most events, channel, name, seal, milliseconds to live, bytes.
_ADD = (
    _BEGIN
    + """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('SET', KEYS[4], ARGV[7], 'PX', ARGV[6])
redis.call('ZADD', KEYS[3], now + tonumber(ARGV[6]), ARGV[4])
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
local seq = redis.call('HINCRBY', KEYS[1], 'seq', 1)
local number = string.format('%.0f-0', seq)
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], number, 'n', ARGV[4], 's', ARGV[5])
redis.call('PUBLISH', ARGV[3], number)
return seq
"""
)

# KEYS: state, log, index, entries. ARGV: a fresh id, most events, channel, then their names.
_DROP = (
    _BEGIN
    + """
for i = 4, #KEYS do
  redis.call('UNLINK', KEYS[i])
  redis.call('ZREM', KEYS[3], ARGV[i])
  local seq = redis.call('HINCRBY', KEYS[1], 'seq', 1)
  local number = string.format('%.0f-0', seq)
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], number, 'n', ARGV[i], 's', '')
end
redis.call('PUBLISH', ARGV[3], '')
return #KEYS - 3
"""
)

# KEYS: index, entries. ARGV: for each its name and its seal.
# What an epoch has voided makes room, untold; what was put in its place since stays.
_SWEEP = """
for i = 2, #KEYS do
  if redis.call('GETRANGE', KEYS[i], 0, 7) == ARGV[2 * i - 2] then
    redis.call('UNLINK', KEYS[i])
    redis.call('ZREM', KEYS[1], ARGV[2 * i - 3])
  end
end
return #KEYS - 1
"""

SCRIPTS = {
    "look": _LOOK,
    "add": _ADD,
    "drop": _DROP,
    "sweep": _SWEEP,
    "heads": SHARED["heads"],
    "invalidate": SHARED["invalidate"],
}
"""Every script by its name."""
