-- An ended instance leaves the server, being in an archive. It is marked first, so that whoever looks from now on reads it there;
-- its keys go a while later, when nobody reads them any more.
-- KEYS  1 meta  2.. all other keys of it, for "go"
-- ARGV  1 uid  2 id of its last entry  3 "mark" | "stay" (the mark is taken back) | "go"  4 seconds since it was marked, at least
-- Answers {'OK'} | {'GONE'}: it is not there, is another by now, or goes on | {'EARLY'}
local meta = redis.call('HMGET', KEYS[1], 'uid', 'tip', 'sealed', 'leaving')
if not meta[1] and ARGV[3] == 'go' then return {'OK'} end -- sent again
if meta[1] ~= ARGV[1] or meta[2] ~= ARGV[2] or not meta[3] then return {'GONE'} end
local now = redis.call('TIME')[1]
if ARGV[3] == 'mark' then
  if not meta[4] then redis.call('HSET', KEYS[1], 'leaving', now) end
elseif ARGV[3] == 'stay' then
  redis.call('HDEL', KEYS[1], 'leaving')
else
  if not meta[4] or tonumber(now) < tonumber(meta[4]) + tonumber(ARGV[4]) then return {'EARLY'} end
  for i = 2, #KEYS do redis.call('UNLINK', KEYS[i]) end
  redis.call('UNLINK', KEYS[1])
end
return {'OK'}
