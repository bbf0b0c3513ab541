-- Draw the soft memory line of the instance: past it refusable commits are refused. 0: there is none.
-- KEYS  1 meta
-- ARGV  1 uid  2 bytes
-- Answers {'OK'} | {'GONE'}
local uid = redis.call('HGET', KEYS[1], 'uid')
if not uid or uid ~= ARGV[1] then return {'GONE'} end
redis.call('HSET', KEYS[1], 'room', ARGV[2])
return {'OK'}
