-- A journal goes down to another server, which has all of it by now: it is here no more. What stays is what has come of the journal
-- that is to come up again (see arrive.lua), so nothing of it has to come twice, and nothing of it is on one host alone.
-- KEYS  1 meta  2 guards  3 arriving
-- ARGV  1 uid  2 epoch  3 tip version  4 the word under which it is to come up again
-- Answers {'OK'} | {'GONE'} | {'LOST', witness} | {'MOVED', epoch, version}
local meta = redis.call('HMGET', KEYS[1], 'uid', 'epoch', 'version', 'tip', 'fork')
if not meta[1] and redis.call('HGET', KEYS[3], 'uid') == ARGV[4] then return {'OK'} end -- sent again
if not meta[1] or meta[1] ~= ARGV[1] then return {'GONE'} end
if meta[5] then return {'LOST', meta[5]} end
if meta[2] ~= ARGV[2] or meta[3] ~= ARGV[3] then return {'MOVED', meta[2], meta[3]} end
redis.call('DEL', KEYS[3])
redis.call('HSET', KEYS[3], 'uid', ARGV[4], 'tip', meta[4])
redis.call('DEL', KEYS[1], KEYS[2])
return {'OK'}
