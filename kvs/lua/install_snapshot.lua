-- Replace the newest snapshot, if uid and epoch still hold and it ends with an entry of this history.
-- KEYS  1 meta  2 snapshot  3 journal
-- ARGV  1 uid  2 epoch  3 compare replication ids (0/1)  4 the entry it ends with, "<id>:<payload hash>", or ""  5 its version
--       6 head  7.. chunks
-- Answers {'OK'} | {'GONE'} | {'EPOCH', epoch} | {'FORK', id} | {'OLD'}
local meta = redis.call('HMGET', KEYS[1], 'uid', 'epoch', 'replid', 'version', 'fork', 'trimmed')
if not meta[1] or meta[1] ~= ARGV[1] then return {'GONE'} end
if meta[2] ~= ARGV[2] or meta[5] then return {'EPOCH', meta[2]} end
if ARGV[3] == '1' then
  local replid = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
  if replid ~= meta[3] then return {'EPOCH', meta[2]} end
end
if ARGV[4] ~= '' then
  local version = string.match(ARGV[4], '^%d+')
  if tonumber(version) > tonumber(meta[4]) then return {'FORK', meta[4]} end
  local at = redis.call('XRANGE', KEYS[3], version, version, 'COUNT', '1')[1]
  local known, hash = string.match(ARGV[4], '^([^:]+):(%x+)$')
  hash = string.gsub(hash, '%x%x', function(digits) return string.char(tonumber(digits, 16)) end)
  if at and (at[1] ~= known or not string.find(at[2][2], hash, 1, true)) then return {'FORK', at[1]} end
end
-- Nobody could go on from a snapshot whose next entry is not here any more.
if meta[6] and tonumber(ARGV[5]) < tonumber(string.match(meta[6], '^%d+')) then return {'OLD'} end
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[2], 'head', ARGV[6], 'chunks', tostring(#ARGV - 6), 'version', ARGV[5])
for i = 7, #ARGV do
  redis.call('HSET', KEYS[2], tostring(i - 7), ARGV[i])
end
return {'OK'}
