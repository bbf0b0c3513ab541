-- An instance that has ended needs less: streams of messages that nobody reads any more go, and those that are read take the room
-- that they need (a stream that grows keeps 4 kB for what is to come, a hash that was large stays a table). Nothing that is read is lost.
-- KEYS  1 meta  2.. streams and hashes to pack, then keys to drop
-- ARGV  1 uid  2 how many to pack  3 entries above which packing is not worth the time
-- Answers {'OK'} | {'GONE'}: it is another instance by now, or goes on
local meta = redis.call('HMGET', KEYS[1], 'uid', 'sealed')
if meta[1] ~= ARGV[1] or not meta[2] then return {'GONE'} end
local count = tonumber(ARGV[2])
for at = 2 + count, #KEYS do redis.call('DEL', KEYS[at]) end
for at = 2, 1 + count do
  local hash = redis.call('TYPE', KEYS[at])['ok'] == 'hash'
  local length = redis.pcall(hash and 'HLEN' or 'XLEN', KEYS[at])
  if type(length) == 'number' and length > 0 and length <= tonumber(ARGV[3]) then
    local whole = redis.pcall('DUMP', KEYS[at])
    if type(whole) == 'string' then redis.pcall('RESTORE', KEYS[at], '0', whole, 'REPLACE') end
  end
end
return {'OK'}
