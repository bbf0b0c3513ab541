-- Go on from what is left of a history: a new epoch and the entry that says so, in one step, if all is as named.
-- KEYS  1 meta  2 journal  3 guards
-- ARGV  1 uid  2 old epoch  3 tip version  4 new epoch  5 read the replication id (0/1)
--       6 "<first>-<last>" version known of what is lost, and epochs of it (see epochs.py)  7 header (array of nine, eight elements)  8 payload
-- Answers {'OK', id} | {'GONE'} | {'MOVED', epoch, version} | {'CORRUPT', why}
local meta = redis.call('HMGET', KEYS[1], 'uid', 'epoch', 'version', 'tip', 'epochs')
if not meta[1] or meta[1] ~= ARGV[1] then return {'GONE'} end
if meta[2] == ARGV[4] then return {'OK', meta[4]} end -- sent again
if meta[2] ~= ARGV[2] or meta[3] ~= ARGV[3] then return {'MOVED', meta[2], meta[3]} end
local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', '1')
local tip = newest[1] and newest[1][1] or '0-0'
if tip ~= meta[4] then return {'CORRUPT', 'the journal ends at ' .. tip .. ', meta says ' .. tostring(meta[4])} end
local mark = redis.call('HGET', KEYS[3], '!')
if mark ~= meta[3] then
  return {'CORRUPT', 'the guard table is of version ' .. tostring(mark) .. ', meta says ' .. meta[3]}
end
local replid = ''
if ARGV[5] == '1' then
  replid = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
end
local new = string.format('%d', tonumber(meta[3]) + 1)
local id = new .. '-' .. ARGV[4]
local time = redis.call('TIME')
local header = ARGV[7] .. '\176' .. string.format('%010d%06d', tonumber(time[1]), tonumber(time[2]))
redis.call('XADD', KEYS[2], id, 'h', header, 'p', ARGV[8])
redis.call('HSET', KEYS[3], '!', new)
local line = (meta[5] and meta[5] .. ' ' or '') .. ARGV[4] .. ':' .. new .. '!' .. ARGV[6]
redis.call('HSET', KEYS[1], 'version', new, 'tip', id, 'epoch', ARGV[4], 'replid', replid, 'epochs', line)
redis.call('HDEL', KEYS[1], 'fork')
return {'OK', id}
