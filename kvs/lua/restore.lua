-- Put entries of another journal into a namespace in which nothing has been appended yet, as they were, in order.
-- KEYS  1 journal  2 meta  3 guards
-- ARGV  1 uid  2 "entries": id, header, payload, id, header, payload, ...
--              2 "end": epochs, floor, thing, bump, thing, bump, ...
-- Answers {'OK', version} | {'GONE'} | {'LIVE', tip} (something has been appended) | {'AFTER', version} (not the next one)
local meta = redis.call('HMGET', KEYS[2], 'uid', 'epoch', 'version', 'tip')
if not meta[1] or meta[1] ~= ARGV[1] then return {'GONE'} end
if string.match(meta[4], '%d+$') == meta[2] then return {'LIVE', meta[4]} end
local version, tip = tonumber(meta[3]), meta[4]
if ARGV[2] == 'end' then
  for i = 5, #ARGV, 2 do
    redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1])
  end
  redis.call('HSET', KEYS[2], 'epochs', ARGV[3], 'floor', ARGV[4])
  return {'OK', meta[3]}
end
for i = 3, #ARGV, 3 do
  local next = tonumber(string.match(ARGV[i], '^%d+'))
  if next > version then
    if next ~= version + 1 then return {'AFTER', string.format('%d', version)} end
    redis.call('XADD', KEYS[1], ARGV[i], 'h', ARGV[i + 1], 'p', ARGV[i + 2])
    version, tip = next, ARGV[i]
    redis.call('HSET', KEYS[2], 'version', string.format('%d', version), 'tip', tip)
    redis.call('HSET', KEYS[3], '!', string.format('%d', version))
  end
end
return {'OK', string.format('%d', version)}
