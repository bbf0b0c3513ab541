-- Remove those of these blobs that nobody has touched since, if the journal still ends where the caller has read it up to.
-- KEYS  1 meta  2 blobs  3 touched
-- ARGV  1 uid  2 tip id  3 touched before (Unix seconds)  4.. names
-- Answers {'OK', how many went} | {'GONE'} | {'MOVED', tip id}
local meta = redis.call('HMGET', KEYS[1], 'uid', 'tip')
if not meta[1] or meta[1] ~= ARGV[1] then return {'GONE'} end
if meta[2] ~= ARGV[2] then return {'MOVED', meta[2]} end
local before, gone = tonumber(ARGV[3]), 0
for i = 4, #ARGV do
  local touched = redis.call('HGET', KEYS[3], ARGV[i])
  if touched and tonumber(touched) < before then
    gone = gone + redis.call('HDEL', KEYS[2], ARGV[i])
    redis.call('HDEL', KEYS[3], ARGV[i])
  end
end
return {'OK', gone}
