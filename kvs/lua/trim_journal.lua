-- Drop the oldest entries of a journal, which are archived and below a snapshot, and note where they are.
-- KEYS  1 meta  2 journal  3 snapshot
-- ARGV  1 uid  2 epoch  3 compare replication ids (0/1)  4 id of the last entry to go  5 its version  6 the id after it  7 archive
-- Answers {'OK'} | {'GONE'} | {'EPOCH', epoch} | {'TIP', version} | {'SNAPSHOT', version} | {'OTHER', id}
local meta = redis.call('HMGET', KEYS[1], 'uid', 'epoch', 'replid', 'version', 'trimmed', 'fork')
if not meta[1] or meta[1] ~= ARGV[1] then return {'GONE'} end
if meta[2] ~= ARGV[2] or meta[6] then return {'EPOCH', meta[2]} end
if ARGV[3] == '1' then
  local replid = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
  if replid ~= meta[3] then return {'EPOCH', meta[2]} end
end
local last = tonumber(ARGV[5])
if last >= tonumber(meta[4]) then return {'TIP', meta[4]} end
local below = redis.call('HGET', KEYS[3], 'version') or '0'
if last > tonumber(below) then return {'SNAPSHOT', below} end
if meta[5] and last <= tonumber(string.match(meta[5], '^%d+')) then return {'OK'} end
local found = redis.call('XRANGE', KEYS[2], ARGV[5], ARGV[5], 'COUNT', '1')
local id = found[1] and found[1][1] or 'none'
if id ~= ARGV[4] then return {'OTHER', id} end
redis.call('HSET', KEYS[1], 'trimmed', ARGV[4], 'archive', ARGV[7])
redis.call('XTRIM', KEYS[2], 'MINID', ARGV[6])
return {'OK'}
