-- Note that a program of this schema runs the instance; a lower number than was noted changes nothing.
-- KEYS  1 meta
-- ARGV  1 uid  2 schema
-- Answers {'OK'} | {'GONE'}
local meta = redis.call('HMGET', KEYS[1], 'uid', 'schema')
if not meta[1] or meta[1] ~= ARGV[1] then return {'GONE'} end
if tonumber(ARGV[2]) > (tonumber(meta[2]) or 0) then redis.call('HSET', KEYS[1], 'schema', ARGV[2]) end
return {'OK'}
