"""The scripts of topics and states. Pure.

Keys: 1 meta (hash: ``e`` epoch, ``o`` offset, ``f`` server, ``b`` base, ``d`` newest removal,
``r`` rebuilt, ``c`` messages to keep, ``k`` kind), 2 data (stream, or hash of
``offset|time|ttl|value``), 3 the server (set by each node as it connects), 4 the number of the
writer's last change.

``ARGV[1]`` is a line of fields between spaces, ``-`` for an empty one, which is taken apart here:
each argument of a command costs the sender more than a field does the server. In the scripts the
fields are ``F[1]`` and so on.
"""

from __future__ import annotations

__all__ = ["APPEND", "CHANGE", "LOAD", "REBUILD", "RENEW"]

_FIELDS = """
local F = {}
for field in string.gmatch(ARGV[1], '%S+') do F[#F + 1] = field end
"""

# F: 1 the server as the caller knows it, 2 epoch and 3 offset that it knows, 4 name for a new
# epoch, 5 "history" or "state".
_FENCE = """
local meta = redis.call('HMGET', KEYS[1], 'e', 'o', 'f')
local e, o, hint = meta[1], tonumber(meta[2] or 0), tonumber(F[3])
local server = redis.call('GET', KEYS[3])
if not server then
  server = F[1]
  redis.call('SET', KEYS[3], server)
end
local function anew()
  if hint > o then
    if F[5] == 'history' then redis.call('DEL', KEYS[2]) end
    o = hint
  end
  e = F[4]
  redis.call('HSET', KEYS[1], 'e', e, 'o', o, 'f', server, 'b', o, 'd', o, 'r', 0)
end
if not e or meta[3] ~= server or (e == F[2] and hint > o) then anew() end
local time = redis.call('TIME')
local now = time[1] .. '.' .. string.rep('0', 6 - #time[2]) .. time[2]
"""

# F: 6 number, 7 the one before, 8 command to publish, 9 seconds that an unused topic is remembered;
# what belongs to the kind begins at 10. ARGV: 2 channel, 3 frame. Of several messages, with numbers
# in a row, 6 is the first, and from 3 on are their frames; those that were published are left out.
_ONCE = """
local number, first = tonumber(F[6]), 3
if F[5] == 'history' then number = number + #ARGV - 3 end
local last = tonumber(redis.call('GET', KEYS[4]) or false)
if last then
  if last >= number then return 0 end
  if last < tonumber(F[7]) then return -1 end
  first = math.max(3, 4 + last - tonumber(F[6]))
end
"""

# Who knows no epoch, as an emitter, has not read the topic, and does not decide what it is.
_KIND = """
local kind = F[2] == '-' and redis.call('HGET', KEYS[1], 'k')
if kind and kind ~= F[5] then
  return redis.error_reply('KIND the app has a ' .. kind .. ' of this name, not a ' .. F[5])
end
"""

_PUBLISH = """
redis.call('SET', KEYS[4], number, 'EX', 600)
if F[9] ~= '0' then
  redis.call('EXPIRE', KEYS[1], F[9])
  redis.call('EXPIRE', KEYS[2], F[9])
end
redis.call(F[8], ARGV[2], e .. ' ' .. o .. ' ' .. now .. sizes .. '\\n' .. frames)
return o
"""

# F: 10 count, 0 for that of who has read it; 11 offset of the oldest that is needed, 12 seconds
# for which any is.
APPEND = (
    _FIELDS
    + _ONCE
    + _KIND
    + _FENCE
    + """
local sizes, frames = '', ARGV[#ARGV]
for i = first, #ARGV - 1 do
  o = o + 1
  redis.call('XADD', KEYS[2], o .. '-0', 'f', ARGV[i], 't', now)
  sizes = sizes .. ' ' .. #ARGV[i]
end
if first < #ARGV then
  sizes, frames = sizes .. ' ' .. #frames, table.concat(ARGV, '', first)
end
o = o + 1
local by, bound = 'MINID', F[11]
if bound == '0' then
  by, bound = 'MAXLEN', F[10]
  if bound == '0' then bound = redis.call('HGET', KEYS[1], 'c') or 1000 end
end
redis.call('XADD', KEYS[2], by, '~', bound, o .. '-0', 'f', ARGV[#ARGV], 't', now)
redis.call('HSET', KEYS[1], 'o', o)
if F[12] ~= '0' then redis.call('EXPIRE', KEYS[2], F[12]) end
"""
    + _PUBLISH
)

# F: 10 milliseconds or -, 11 the offset that the removed key must have or 0, 12 how many keys are
# set. ARGV: from 4 on keys and values, then removed keys.
CHANGE = (
    _FIELDS
    + _ONCE
    + _KIND
    + _FENCE
    + """
local sizes, frames = '', ARGV[3]
local gone, ttl = 4 + 2 * tonumber(F[12]), F[10]
if ttl == '-' then ttl = '' end
if F[11] ~= '0' then
  local kept = redis.call('HGET', KEYS[2], ARGV[gone])
  if not kept or string.match(kept, '^%d+') ~= F[11] then
    redis.call('SET', KEYS[4], F[6], 'EX', 600)
    return 0
  end
end
for i = 4, gone - 1, 2 do
  o = o + 1
  redis.call('HSET', KEYS[2], ARGV[i], o .. '|' .. now .. '|' .. ttl .. '|' .. ARGV[i + 1])
end
for i = gone, #ARGV do
  o = o + 1
  redis.call('HDEL', KEYS[2], ARGV[i])
  redis.call('HSET', KEYS[1], 'd', o)
end
redis.call('HSET', KEYS[1], 'o', o)
"""
    + _PUBLISH
)

# F: 6 how many messages at most; of a state, 0 for its values in any case. It writes whatever
# it is asked, so that a server which refuses to is not taken for one that works.
LOAD = (
    _FIELDS
    + _FENCE
    + """
redis.call('HSET', KEYS[1], 'c', F[5] == 'history' and F[6] or 0, 'k', F[5])
local found = {}
local whole = 0
if e ~= F[2] or o ~= hint or F[6] == '0' then
  whole = 1
  if F[5] == 'state' then
    found = redis.call('HGETALL', KEYS[2])
  elseif e == F[2] then
    found = redis.call('XRANGE', KEYS[2], (hint + 1) .. '-0', '+')
  else
    found = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', F[6])
  end
end
local m = redis.call('HMGET', KEYS[1], 'b', 'd', 'r')
return {e, o, tonumber(m[1]), tonumber(m[2]), tonumber(m[3]), now, found, whole}
"""
)

# KEYS: meta and data. ARGV: 1 epoch, 2 base, 3 command, 4 channel, 5 frame; then each key,
# milliseconds or nothing, value.
REBUILD = """
local meta = redis.call('HMGET', KEYS[1], 'e', 'o', 'r')
if meta[1] ~= ARGV[1] or meta[3] ~= '0' then return 0 end
local o, base, mine = tonumber(meta[2]), tonumber(ARGV[2]), {}
local time = redis.call('TIME')
local now = time[1] .. '.' .. string.rep('0', 6 - #time[2]) .. time[2]
local function is_old(key)
  local kept = redis.call('HGET', KEYS[2], key)
  return not kept or tonumber(string.match(kept, '^%d+')) <= base
end
for i = 6, #ARGV, 3 do
  mine[ARGV[i]] = true
  if is_old(ARGV[i]) then
    o = o + 1
    redis.call(
      'HSET', KEYS[2], ARGV[i], o .. '|' .. now .. '|' .. ARGV[i + 1] .. '|' .. ARGV[i + 2]
    )
  end
end
for _, key in ipairs(redis.call('HKEYS', KEYS[2])) do
  if not mine[key] and is_old(key) then redis.call('HDEL', KEYS[2], key) end
end
o = o + 1
redis.call('HSET', KEYS[1], 'o', o, 'd', o, 'r', 1)
redis.call(ARGV[3], ARGV[4], ARGV[1] .. ' ' .. o .. ' ' .. now .. '\\n' .. ARGV[5])
return 1
"""

# F: 6 command to publish. ARGV: 2 channel, 3 frame.
RENEW = (
    _FIELDS
    + _FENCE
    + """
if e ~= F[2] then return 0 end
anew()
o = o + 1
redis.call('HSET', KEYS[1], 'o', o, 'b', o, 'd', o)
if F[5] == 'history' then redis.call('DEL', KEYS[2]) end
redis.call(F[6], ARGV[2], e .. ' ' .. o .. ' ' .. now .. '\\n' .. ARGV[3])
return 1
"""
)
