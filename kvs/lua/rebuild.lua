-- Make the tables beside a journal anew when something is wrong with one: in steps, between which nobody can append.
-- KEYS  1 journal  2 meta  3 guards  4 producers  5.. inboxes ("begin" only)
-- ARGV  1 uid  2 the epoch that "begin" opens, and that has to be there still at every further step
--       3 "begin": 4 old epoch  5 tip version  6 read the replication id (0/1)
--         "guards", "producers": 4.. field, value, field, value, ...
--         "end"
-- Answers {'OK'} | {'WHOLE'} (begin: nothing is wrong, nothing was done) | {'GONE'} | {'MOVED', epoch, version} | {'CORRUPT', why}
local journal, meta_key, guards, producers = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local call = redis.call
local meta = call('HMGET', meta_key, 'uid', 'epoch', 'version', 'tip', 'epochs')
if not meta[1] or meta[1] ~= ARGV[1] then return {'GONE'} end
local ours, version = meta[2] == ARGV[2], tonumber(meta[3])

if ARGV[3] ~= 'begin' then
  if not ours then return {'MOVED', meta[2], meta[3]} end -- somebody else began after us
  if ARGV[3] == 'end' then
    call('HSET', meta_key, 'floor', meta[3]) -- guards of jobs are not made anew: what was decided before this conflicts
    call('HSET', guards, '!', meta[3])
  elseif call('HGET', guards, '!') then
    return {'MOVED', meta[2], meta[3]} -- a copy of a step, come late: what is there by now is newer
  else
    for first = 4, #ARGV, 4000 do
      call('HSET', ARGV[3] == 'guards' and guards or producers, unpack(ARGV, first, math.min(first + 3999, #ARGV)))
    end
  end
  return {'OK'}
end

if ours then return {'OK'} end -- sent again
if meta[2] ~= ARGV[4] or meta[3] ~= ARGV[5] then return {'MOVED', meta[2], meta[3]} end
local newest = call('XREVRANGE', journal, '+', '-', 'COUNT', '1')
local tip = newest[1] and newest[1][1] or '0-0'
if tip ~= meta[4] then return {'CORRUPT', 'the journal ends at ' .. tip .. ', meta says ' .. tostring(meta[4])} end

local function kind_of(key) return call('TYPE', key)['ok'] end

local function broken_table()
  if kind_of(guards) ~= 'hash' or call('HGET', guards, '!') ~= meta[3] then return true end
  local kind = kind_of(producers)
  if kind == 'none' then return false end -- no producer yet
  if kind ~= 'hash' then return true end
  local found = call('HGETALL', producers)
  for i = 2, #found, 2 do
    if not string.match(found[i], '^%d+ %S+ %S+$') then return true end
  end
end

local broken = broken_table()
for i = 5, #KEYS do
  local kind, bad = kind_of(KEYS[i]), false
  if kind == 'stream' then
    local facts = call('XINFO', 'STREAM', KEYS[i])
    for j = 1, #facts, 2 do
      if facts[j] == 'last-generated-id' then bad = tonumber(string.match(facts[j + 1], '^%d+')) > version end
    end
  else
    bad = kind ~= 'none'
  end
  if bad then -- its node says what it has in the new epoch, and is told again what it lacks
    call('DEL', KEYS[i])
    broken = true
  end
end
if not broken then return {'WHOLE'} end
call('DEL', guards, producers)
local replid = ''
if ARGV[6] == '1' then
  replid = string.match(call('INFO', 'replication'), 'master_replid:(%x+)')
end
local line = (meta[5] and meta[5] .. ' ' or '') .. ARGV[2] .. ':' .. string.format('%d', version + 1)
call('HSET', meta_key, 'epoch', ARGV[2], 'replid', replid, 'epochs', line)
return {'OK'}
