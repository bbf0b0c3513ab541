-- The entry for which a history was fenced is in it: it may be written to as before, if all is as named.
-- KEYS  1 meta
-- ARGV  1 uid  2 epoch  3 tip version  4 the entry known, as the meta names it
-- Answers {'OK'} | {'GONE'} | {'MOVED', epoch, version}
local meta = redis.call('HMGET', KEYS[1], 'uid', 'epoch', 'version', 'fork')
if not meta[1] or meta[1] ~= ARGV[1] then return {'GONE'} end
if meta[2] ~= ARGV[2] or meta[3] ~= ARGV[3] then return {'MOVED', meta[2], meta[3]} end
if not meta[4] then return {'OK'} end -- sent again, or somebody was quicker
if meta[4] ~= ARGV[4] then return {'MOVED', meta[2], meta[3]} end
redis.call('HDEL', KEYS[1], 'fork')
return {'OK'}
