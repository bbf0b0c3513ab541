-- The only write path of a journal. Checks everything before its first write, so it writes all or nothing.
--
-- KEYS  1 journal  2 meta  3 guards  4 producers  5.. inbox streams
-- ARGV  1 uid  2 epoch  3 decided_at  4 header (array of nine, eight elements)  5 payload  6 producer  7 seq
--       8 payload hash  9 #since  10 #exact  11 #absent  12 #bumps  13 #clears  14 compare replication ids (0/1)
--       15 soft memory line in bytes (0: none)
--       then: since things, exact things, exact versions, absent things, bumps, clears, inbox messages
--
-- Answers {word, ...}: GONE | EPOCH epoch | CORRUPT why | DUP id | GAP last | FULL used | CONFLICT things.. | OK id
-- An epoch is only ever a string: doubles would do, arithmetic on it never would.

local journal, meta_key, guards, producers = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local call, try = redis.call, redis.pcall
local CHUNK = 4000 -- arguments per call: unpack is limited by Lua's stack of 8000

local function wrong(reply)
  return type(reply) == 'table' and reply['err'] or false
end

-- Who are we, and is history the one the caller knows?
local meta = try('HMGET', meta_key, 'uid', 'epoch', 'version', 'tip', 'floor', 'replid')
if wrong(meta) then return {'CORRUPT', 'meta: ' .. wrong(meta)} end
if not meta[1] or meta[1] ~= ARGV[1] then return {'GONE'} end
local epoch = meta[2]
if epoch ~= ARGV[2] then return {'EPOCH', epoch} end
if ARGV[14] == '1' then
  local replid = string.match(call('INFO', 'replication'), 'master_replid:(%x+)')
  if replid ~= meta[6] then return {'EPOCH', epoch} end
end

-- Do stream, meta and guard table agree?
local version = tonumber(meta[3])
if not version then return {'CORRUPT', 'meta has no version'} end
local newest = try('XREVRANGE', journal, '+', '-', 'COUNT', '1')
if wrong(newest) then return {'CORRUPT', 'journal: ' .. wrong(newest)} end
local tip = newest[1] and newest[1][1] or '0-0'
if tip ~= meta[4] then
  return {'CORRUPT', 'the journal ends at ' .. tip .. ', meta says ' .. tostring(meta[4])}
end
local mark = try('HGET', guards, '!')
if wrong(mark) then return {'CORRUPT', 'guards: ' .. wrong(mark)} end
if tonumber(mark or '-1') ~= version then
  return {'CORRUPT', 'the guard table is of version ' .. tostring(mark) .. ', meta says ' .. meta[3]}
end

-- Was this sequence taken already?
local producer = ARGV[6]
if producer ~= '' then
  local record = try('HGET', producers, producer)
  if wrong(record) then return {'CORRUPT', 'producers: ' .. wrong(record)} end
  local seq, last, id, hash = tonumber(ARGV[7]), 0, nil, nil
  if record then
    local digits
    digits, id, hash = string.match(record, '^(%d+) (%S+) (%S+)$')
    last = tonumber(digits)
    if not last then return {'CORRUPT', 'producers: no record: ' .. record} end
  end
  if seq == last and id then
    if hash == ARGV[8] then return {'DUP', id} end
    return {'CORRUPT', 'producer ' .. producer .. ' used sequence ' .. ARGV[7] .. ' for two payloads'}
  end
  if seq ~= last + 1 then return {'GAP', string.format('%d', last)} end
end

-- Do the premises hold?
local decided, floor = tonumber(ARGV[3]), tonumber(meta[5] or '0')
local forgetful = decided < floor -- what is absent may have been bumped since, and pruned
local nsince, nexact, nabsent = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])
local moved = {}

local at = 16
for first = at, at + nsince - 1, CHUNK do
  local last = math.min(first + CHUNK, at + nsince) - 1
  local found = call('HMGET', guards, unpack(ARGV, first, last))
  for i = 1, last - first + 1 do
    local bump = found[i]
    if bump then
      if tonumber(bump) > decided then moved[#moved + 1] = ARGV[first + i - 1] end
    elseif forgetful then
      moved[#moved + 1] = ARGV[first + i - 1]
    end
  end
end
at = at + nsince
for first = at, at + nexact - 1, CHUNK do
  local last = math.min(first + CHUNK, at + nexact) - 1
  local found = call('HMGET', guards, unpack(ARGV, first, last))
  for i = 1, last - first + 1 do
    if found[i] ~= ARGV[first + i - 1 + nexact] then moved[#moved + 1] = ARGV[first + i - 1] end
  end
end
at = at + 2 * nexact
for first = at, at + nabsent - 1, CHUNK do
  local last = math.min(first + CHUNK, at + nabsent) - 1
  local found = call('HMGET', guards, unpack(ARGV, first, last))
  for i = 1, last - first + 1 do
    if found[i] then moved[#moved + 1] = ARGV[first + i - 1] end
  end
end
at = at + nabsent
if #moved > 0 then
  table.insert(moved, 1, 'CONFLICT')
  return moved
end

-- Can every inbox take its message? An id below a stream's last would fail halfway through the writes.
for i = 5, #KEYS do
  local kind = call('TYPE', KEYS[i])['ok']
  if kind ~= 'none' then
    if kind ~= 'stream' then return {'CORRUPT', KEYS[i] .. ' is a ' .. kind .. ', not a stream'} end
    local facts = call('XINFO', 'STREAM', KEYS[i])
    for j = 1, #facts, 2 do
      if facts[j] == 'last-generated-id' and tonumber(string.match(facts[j + 1], '^%d+')) > version then
        return {'CORRUPT', KEYS[i] .. ' ends at ' .. facts[j + 1] .. ', past the journal'}
      end
    end
  end
end

-- Room to finish: only those who ask for it are refused.
if ARGV[15] ~= '0' then
  local used = string.match(call('INFO', 'memory'), 'used_memory:(%d+)')
  if tonumber(used) > tonumber(ARGV[15]) then return {'FULL', used} end
end

-- From here on everything is written.
local nbumps, nclears = tonumber(ARGV[12]), tonumber(ARGV[13])
local new = string.format('%d', version + 1)
local id = new .. '-' .. epoch
local time = call('TIME')
local header = ARGV[4] .. '\176' .. string.format('%010d%06d', tonumber(time[1]), tonumber(time[2]))
local added = try('XADD', journal, id, 'h', header, 'p', ARGV[5])
if wrong(added) then -- the first write: nothing else has happened
  if string.find(wrong(added), 'smaller', 1, true) then return {'CORRUPT', 'journal: ' .. wrong(added)} end
  return added
end
local pairs_ = {'!', new}
local n = 2
for i = at, at + nbumps - 1 do
  pairs_[n + 1] = ARGV[i]
  pairs_[n + 2] = new
  n = n + 2
  if n >= CHUNK then
    call('HSET', guards, unpack(pairs_, 1, n))
    n = 0
  end
end
if n > 0 then call('HSET', guards, unpack(pairs_, 1, n)) end
at = at + nbumps
for first = at, at + nclears - 1, CHUNK do
  call('HDEL', guards, unpack(ARGV, first, math.min(first + CHUNK, at + nclears) - 1))
end
at = at + nclears
for i = 5, #KEYS do
  call('XADD', KEYS[i], id, 'm', ARGV[at + i - 5])
end
if producer ~= '' then
  call('HSET', producers, producer, ARGV[7] .. ' ' .. id .. ' ' .. ARGV[8])
end
call('HSET', meta_key, 'version', new, 'tip', id)
return {'OK', id}
