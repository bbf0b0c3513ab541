-- Create a namespace where there is none.
-- KEYS  1 meta  2 guards  3 journal  4 producers  5 snapshot
-- ARGV  1 read the replication id (0/1)  2.. field, value pairs of meta
-- Answers {'OK'} | {'EXISTS', key}
for i = 1, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 1 then return {'EXISTS', KEYS[i]} end
end
local replid = ''
if ARGV[1] == '1' then
  replid = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
end
redis.call('HSET', KEYS[1], 'replid', replid, 'version', '0', 'tip', '0-0', 'floor', '0', unpack(ARGV, 2))
redis.call('HSET', KEYS[2], '!', '0')
return {'OK'}
