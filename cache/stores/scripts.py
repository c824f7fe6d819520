"""The steps that must happen in Redis as one, in Lua.

The epoch stands in the hash of the scopes, so that reading it at every claim
keeps the hash from looking idle to an eviction policy.
"""

from __future__ import annotations

# KEYS: entry, lease, epochs. ARGV: process, milliseconds, whether to pass the entry over.
# Returns how it stands (1 an entry, 2 ours to lead, 3 led by another, 4 no room), the
# entry or the lease's token, and the epoch. A token ends in the epoch it was taken in.
_CLAIM = """
local epoch = redis.call('HGET', KEYS[3], 'now') or '0'
if ARGV[3] == '0' then
  local entry = redis.call('GET', KEYS[1])
  if entry then return {1, entry, epoch} end
end
local token = ARGV[1] .. ':' .. epoch
local set = redis.pcall('SET', KEYS[2], token, 'NX', 'PX', ARGV[2])
if type(set) == 'table' and set.err then return {4, '', epoch} end
if set then return {2, token, epoch} end
return {3, redis.call('GET', KEYS[2]) or '', epoch}
"""

# KEYS: entry, lease. ARGV: token, milliseconds, bytes.
# A leader whose lease has lapsed and was taken by another no longer writes (the fence).
# One that writes gives its lease back, even where there is no room for the entry.
_KEEP = """
local held = redis.call('GET', KEYS[2])
if held and held ~= ARGV[1] then return 0 end
if held then
  local set = redis.pcall('SET', KEYS[1], ARGV[3], 'PX', ARGV[2])
  redis.call('DEL', KEYS[2])
  if set.err then return set end
  return 1
end
return redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[2], 'NX') and 1 or 0
"""

# KEYS: lease. ARGV: token.
_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""

# KEYS: leases. ARGV: milliseconds, then their tokens. A lease that is gone is taken again.
_RENEW = """
local held = 0
for i, key in ipairs(KEYS) do
  local value = redis.call('GET', key)
  if value == ARGV[i + 1] then
    redis.call('PEXPIRE', key, ARGV[1])
    held = held + 1
  elseif not value then
    redis.call('SET', key, ARGV[i + 1], 'NX', 'PX', ARGV[1])
    held = held + 1
  end
end
return held
"""

# KEYS: entries. ARGV: the last byte wanted of each.
_HEADS = """
local heads = {}
for i, key in ipairs(KEYS) do heads[i] = redis.call('GETRANGE', key, 0, ARGV[1]) end
return heads
"""

# KEYS: epochs. ARGV: scope, the scope of everything, most scopes, channel of the news.
# Epochs are microseconds of Redis's clock: they go on growing when it has lost everything.
_INVALIDATE = """
local time = redis.call('TIME')
local clock = tonumber(time[1]) * 1000000 + tonumber(time[2])
local last = tonumber(redis.call('HGET', KEYS[1], 'now') or '0')
local epoch = string.format('%.0f', math.max(clock, last + 1))
if redis.call('HLEN', KEYS[1]) > tonumber(ARGV[3]) then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], ARGV[2], epoch)
end
redis.call('HSET', KEYS[1], 'now', epoch, ARGV[1], epoch)
redis.call('PUBLISH', ARGV[4], epoch)
return epoch
"""

SCRIPTS = {
    "claim": _CLAIM,
    "keep": _KEEP,
    "release": _RELEASE,
    "renew": _RENEW,
    "heads": _HEADS,
    "invalidate": _INVALIDATE,
}
"""Every script by its name."""
