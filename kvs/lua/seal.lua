-- Whoever writes to this instance writes no more: its name stays, its identity is another.
-- KEYS  1 meta
-- ARGV  1 uid  2 the new uid, which nobody is told
-- Answers {'OK'} | {'GONE'}
if redis.call('HGET', KEYS[1], 'uid') ~= ARGV[1] then return {'GONE'} end
redis.call('HSET', KEYS[1], 'uid', ARGV[2])
return {'OK'}
