-- An ended instance leaves the server, being in an archive. It is marked first, so that whoever looks from now on reads it there;
-- its keys go a while later, when nobody reads them any more: at one moment all but its jobs' streams, and these bit by bit.
-- KEYS  1 meta  2.. for "go": other keys of it; for "rest": arriving, and some of its jobs' streams
-- ARGV  1 uid  2 id of its last entry  3 "mark" | "stay" (the mark is taken back) | "back" (and it stays as long as one that was
--       brought back) | "go" | "rest"  4 seconds since it was marked, at least
-- Answers {'OK'} | {'GONE'}: it is not there, is another by now, or goes on | {'EARLY'}
local meta = redis.call('HMGET', KEYS[1], 'uid', 'tip', 'sealed', 'leaving')
if ARGV[3] == 'rest' then
  if meta[1] or redis.call('EXISTS', KEYS[2]) == 1 then return {'GONE'} end -- it is here again, or comes
  for i = 3, #KEYS do redis.call('UNLINK', KEYS[i]) end
  return {'OK'}
end
if not meta[1] and ARGV[3] == 'go' then return {'OK'} end -- sent again
if meta[1] ~= ARGV[1] or meta[2] ~= ARGV[2] or not meta[3] then return {'GONE'} end
local now = redis.call('TIME')[1]
if ARGV[3] == 'mark' then
  if not meta[4] then redis.call('HSET', KEYS[1], 'leaving', now) end
elseif ARGV[3] == 'stay' or ARGV[3] == 'back' then
  redis.call('HDEL', KEYS[1], 'leaving')
  if ARGV[3] == 'back' then redis.call('HSET', KEYS[1], 'back', now) end
else
  if not meta[4] or tonumber(now) < tonumber(meta[4]) + tonumber(ARGV[4]) then return {'EARLY'} end
  for i = 2, #KEYS do redis.call('UNLINK', KEYS[i]) end
  redis.call('UNLINK', KEYS[1])
end
return {'OK'}
