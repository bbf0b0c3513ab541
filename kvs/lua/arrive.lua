-- Take over a journal that another server held, piece by piece. Nobody sees anything of it before its meta, which comes last.
-- KEYS  1 journal  2 meta  3 guards  4 arriving  5 what the step is about: snapshot, a stream, a door
-- ARGV  1 the instance it is (a word that stays the same)  2 step:
--   "begin"     3 id of the entry behind which it begins  4 read the replication id (0/1)
--   "anew"      3, 4 the same: what has come so far was of another branch, and is dropped
--   "over"      3 id of the last entry that has come under another word, which this is instead from now on  4 as of "begin"
--   "entries"   3.. id, header, payload, ...   those that have come are passed over
--   "messages"  3.. id, data, ...              the same, of the stream KEYS[5]
--   "guards"    3.. thing, bump, ...
--   "snapshot"  3 version  4 head  5.. chunks
--   "end"       3 read the replication id (0/1)  4 what it was at "begin" or "over"  5 the version that it ends with
--               6.. field, value of meta
-- Answers {'OK', id of the last entry that has come, replication id} | {'DONE'} (all of it is here) | {'EXISTS'} (somebody else is)
--         | {'AFTER', id} (not the next entries; or not all that has been sent is here: this is another server by now)
local function replication_id(read)
  return read == '1' and string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)') or ''
end
local step = ARGV[2]
local found = redis.call('HMGET', KEYS[2], 'uid', 'came')
if found[1] then
  if found[2] == ARGV[1] then return {'DONE'} end
  return {'EXISTS'}
end
local who = redis.call('HGET', KEYS[4], 'uid')
if step == 'over' and who and redis.call('HGET', KEYS[4], 'tip') == ARGV[3] then
  redis.call('HSET', KEYS[4], 'uid', ARGV[1])
  who = ARGV[1]
end
if who and who ~= ARGV[1] then return {'EXISTS'} end
if step == 'anew' then redis.call('DEL', KEYS[1], KEYS[3], KEYS[4]) end
if step == 'begin' or step == 'anew' then
  if not redis.call('HGET', KEYS[4], 'uid') then
    redis.call('HSET', KEYS[4], 'uid', ARGV[1], 'tip', ARGV[3])
  end
  return {'OK', redis.call('HGET', KEYS[4], 'tip'), replication_id(ARGV[4])}
end
if not who then return {'AFTER', '0-0'} end
local tip = redis.call('HGET', KEYS[4], 'tip')
if step == 'over' then return {'OK', tip, replication_id(ARGV[4])} end
if step == 'entries' then
  local version = tonumber(string.match(tip, '^%d+'))
  for i = 3, #ARGV, 3 do
    local next = tonumber(string.match(ARGV[i], '^%d+'))
    if next > version then
      if next ~= version + 1 then return {'AFTER', tip} end
      redis.call('XADD', KEYS[1], ARGV[i], 'h', ARGV[i + 1], 'p', ARGV[i + 2])
      version, tip = next, ARGV[i]
      redis.call('HSET', KEYS[4], 'tip', tip)
    end
  end
elseif step == 'messages' then
  local newest = redis.call('XREVRANGE', KEYS[5], '+', '-', 'COUNT', '1')[1]
  local ms, seq = string.match(newest and newest[1] or '0-0', '^(%d+)-(%d+)$')
  for i = 3, #ARGV, 2 do
    local a, b = string.match(ARGV[i], '^(%d+)-(%d+)$')
    if tonumber(a) > tonumber(ms) or (tonumber(a) == tonumber(ms) and tonumber(b) > tonumber(seq)) then
      redis.call('XADD', KEYS[5], ARGV[i], 'm', ARGV[i + 1])
      ms, seq = a, b
    end
  end
elseif step == 'guards' then
  for i = 3, #ARGV, 2 do redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1]) end
elseif step == 'snapshot' then
  redis.call('DEL', KEYS[5])
  redis.call('HSET', KEYS[5], 'head', ARGV[4], 'chunks', tostring(#ARGV - 4), 'version', ARGV[3])
  for i = 5, #ARGV do redis.call('HSET', KEYS[5], tostring(i - 5), ARGV[i]) end
elseif step == 'end' then
  local replid, version = replication_id(ARGV[3]), string.match(tip, '^%d+')
  if replid ~= ARGV[4] or version ~= ARGV[5] then return {'AFTER', tip} end
  redis.call('HSET', KEYS[3], '!', version)
  redis.call('DEL', KEYS[4], KEYS[5])
  redis.call('HSET', KEYS[2], 'replid', replid, 'version', version, 'tip', tip, 'came', ARGV[1], unpack(ARGV, 6))
end
return {'OK', tip}
