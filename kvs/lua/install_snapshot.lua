-- Replace the newest snapshot, if uid and epoch still hold.
-- KEYS  1 meta  2 snapshot
-- ARGV  1 uid  2 epoch  3 compare replication ids (0/1)  4 head  5.. chunks
-- Answers {'OK'} | {'GONE'} | {'EPOCH', epoch}
local meta = redis.call('HMGET', KEYS[1], 'uid', 'epoch', 'replid')
if not meta[1] or meta[1] ~= ARGV[1] then return {'GONE'} end
if meta[2] ~= ARGV[2] then return {'EPOCH', meta[2]} end
if ARGV[3] == '1' then
  local replid = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
  if replid ~= meta[3] then return {'EPOCH', meta[2]} end
end
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[2], 'head', ARGV[4], 'chunks', tostring(#ARGV - 4))
for i = 5, #ARGV do
  redis.call('HSET', KEYS[2], tostring(i - 5), ARGV[i])
end
return {'OK'}
