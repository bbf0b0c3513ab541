-- Somebody knows an entry that this history has not: nothing is appended any more until what is left has been adopted.
-- Whoever says so may have read another server, one that lags, so it is looked for once more, in the same step.
-- KEYS  1 meta  2 journal
-- ARGV  1 uid  2 epoch  3 the entry known, "<version>-<epoch>", or its anchor, "<version>-<epoch>:<payload hash>"
-- Answers {'OK', the highest entry known to be lost, or ''} | {'GONE'} | {'MOVED', epoch}
local meta = redis.call('HMGET', KEYS[1], 'uid', 'epoch', 'fork')
if not meta[1] or meta[1] ~= ARGV[1] then return {'GONE'} end
if meta[2] ~= ARGV[2] then return {'MOVED', meta[2]} end
local known = meta[3]
local id, hash = string.match(ARGV[3], '^([^:]+):?(%x*)$')
local version = string.match(id, '^%d+')
local there = redis.call('XRANGE', KEYS[2], version, version, 'COUNT', '1')[1]
if there and there[1] == id then
  hash = string.gsub(hash, '%x%x', function(digits) return string.char(tonumber(digits, 16)) end)
  if string.find(there[2][2], hash, 1, true) then return {'OK', known or ''} end
end
local highest = known and tonumber(string.match(known, '^%d+')) or 0
version = tonumber(version)
-- of two words about one version the one that says what stood there tells more
if version > highest or (version == highest and #ARGV[3] > #known) then
  known = ARGV[3]
  redis.call('HSET', KEYS[1], 'fork', known)
end
return {'OK', known or ''}
