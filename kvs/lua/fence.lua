-- Somebody knows an entry that this history has not: nothing is appended any more until what is left has been adopted.
-- KEYS  1 meta
-- ARGV  1 uid  2 epoch  3 the entry known, "<version>-<epoch>"
-- Answers {'OK', the highest entry known} | {'GONE'} | {'MOVED', epoch}
local meta = redis.call('HMGET', KEYS[1], 'uid', 'epoch', 'fork')
if not meta[1] or meta[1] ~= ARGV[1] then return {'GONE'} end
if meta[2] ~= ARGV[2] then return {'MOVED', meta[2]} end
local known = meta[3]
if not known or tonumber(string.match(ARGV[3], '^%d+')) > tonumber(string.match(known, '^%d+')) then
  known = ARGV[3]
  redis.call('HSET', KEYS[1], 'fork', known)
end
return {'OK', known}
