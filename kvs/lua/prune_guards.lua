-- One bounded step of pruning. The first step (cursor 0) sets the floor.
-- KEYS  1 meta  2 the table to scan (guards, or producers)
-- ARGV  1 uid  2 epoch  3 floor  4 cursor  5 count  6 "guards" or "producers"
-- Answers {'OK', next cursor, how many went} | {'GONE'} | {'EPOCH', epoch} | {'PAST', version}
local meta = redis.call('HMGET', KEYS[1], 'uid', 'epoch', 'version', 'floor')
if not meta[1] or meta[1] ~= ARGV[1] then return {'GONE'} end
if meta[2] ~= ARGV[2] then return {'EPOCH', meta[2]} end
local floor = tonumber(ARGV[3])
if floor > tonumber(meta[3]) then return {'PAST', meta[3]} end
if floor > tonumber(meta[4]) then redis.call('HSET', KEYS[1], 'floor', ARGV[3]) end
local scan = {'HSCAN', KEYS[2], ARGV[4], 'COUNT', ARGV[5]}
if ARGV[6] == 'guards' then
  scan[6], scan[7] = 'MATCH', 'job/*'
end
local found = redis.call(unpack(scan))
local fields, old = found[2], {}
for i = 1, #fields, 2 do
  local bump = fields[i + 1]
  if ARGV[6] == 'producers' then bump = string.match(bump, '^%d+ (%d+)%-') end
  if bump and tonumber(bump) <= floor then old[#old + 1] = fields[i] end
end
for first = 1, #old, 4000 do
  redis.call('HDEL', KEYS[2], unpack(old, first, math.min(first + 3999, #old)))
end
return {'OK', found[1], #old}
