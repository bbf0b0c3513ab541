-- Keep blobs, or only say that some are wanted; either way they count as touched now.
-- KEYS  1 blobs  2 touched  3 meta
-- ARGV  1 "put": name, bytes, name, bytes, ...  or "touch": name, name, ...
-- Answers the names (of "touch") that are not there | {'FULL', used}: one that is not there begins new work | {'ENDED'}
if ARGV[1] == 'put' then
  local meta = redis.call('HMGET', KEYS[3], 'room', 'sealed')
  if meta[2] then return {'ENDED'} end
  local room = tonumber(meta[1] or '0') or 0
  local used = room > 0 and string.match(redis.call('INFO', 'memory'), 'used_memory:(%d+)') or '0'
  for i = 2, tonumber(used) > room and #ARGV or 0, 2 do
    if redis.call('HEXISTS', KEYS[1], ARGV[i]) == 0 then return {'FULL', used} end
  end
end
local now = redis.call('TIME')[1]
local missing = {}
if ARGV[1] == 'put' then
  for i = 2, #ARGV, 2 do
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
    redis.call('HSET', KEYS[2], ARGV[i], now)
  end
else
  for i = 2, #ARGV do
    if redis.call('HEXISTS', KEYS[1], ARGV[i]) == 1 then
      redis.call('HSET', KEYS[2], ARGV[i], now)
    else
      missing[#missing + 1] = ARGV[i]
    end
  end
end
return missing
