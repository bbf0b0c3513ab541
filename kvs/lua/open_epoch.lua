-- Issue a new epoch under the server's present replication id, if uid, epoch and tip are as named and nothing is known lost.
-- With a new uid whoever has written so far writes no more: the instance is somebody else's from now on, sealed or not before.
-- KEYS  1 meta  2 journal
-- ARGV  1 uid  2 old epoch  3 tip version  4 new epoch  5 read the replication id (0/1)  6 the new uid, "" to keep it
-- Answers {'OK'} | {'GONE'} | {'LOST', witness} | {'MOVED', epoch, version} | {'CORRUPT', why}
local meta = redis.call('HMGET', KEYS[1], 'uid', 'epoch', 'version', 'tip', 'epochs', 'fork', 'origin_uid')
if meta[1] and meta[2] == ARGV[4] then return {'OK'} end -- sent again
if not meta[1] or meta[1] ~= ARGV[1] then return {'GONE'} end
if meta[6] then return {'LOST', meta[6]} end
if meta[2] ~= ARGV[2] or meta[3] ~= ARGV[3] then return {'MOVED', meta[2], meta[3]} end
local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', '1')
local tip = newest[1] and newest[1][1] or '0-0'
if tip ~= meta[4] then return {'CORRUPT', 'the journal ends at ' .. tip .. ', meta says ' .. tostring(meta[4])} end
local replid = ''
if ARGV[5] == '1' then
  replid = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
end
local line = (meta[5] and meta[5] .. ' ' or '') .. ARGV[4] .. ':' .. string.format('%d', tonumber(meta[3]) + 1)
redis.call('HSET', KEYS[1], 'epoch', ARGV[4], 'replid', replid, 'epochs', line)
if ARGV[6] ~= '' then
  redis.call('HSET', KEYS[1], 'uid', ARGV[6], 'origin_uid', meta[7] or ARGV[1])
  redis.call('HDEL', KEYS[1], 'sealed', 'leaving', 'back')
end
return {'OK'}
