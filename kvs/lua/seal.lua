-- Nothing is appended to this instance from now on; all of it can be read.
-- KEYS  1 meta
-- ARGV  1 uid
-- Answers {'OK'} | {'GONE'}
local meta = redis.call('HMGET', KEYS[1], 'uid', 'sealed')
if not meta[1] or meta[1] ~= ARGV[1] then return {'GONE'} end
if not meta[2] then redis.call('HSET', KEYS[1], 'sealed', redis.call('TIME')[1]) end
return {'OK'}
