-- The only write path of a journal. Checks everything before its first write, so it writes all or nothing.
--
-- KEYS  1 journal  2 meta  3 guards  4 producers  5.. inbox streams
-- ARGV  1 uid  2 epoch  3 decided_at  4 header (array of nine, eight elements)  5 payload
--       6 producer  7 seq  8 payload hash  9 compare replication ids (0/1)  10 soft memory line in bytes (0: none)
--       things, joined by newlines, none twice in what is bumped:
--       11 since  12 since and bumped  13 absent  14 absent and bumped  15 bumped only  16 cleared
--       17 exact  18 their ids or bare versions (in the same order)
--       19 anchor: the entry at decided_at as the caller knows it, "<id>:<payload hash>", or "" if it does not
--       20 things set to the id of an attempt that another branch began  21 those ids (in the same order)
--       22.. inbox messages
--
-- Answers {word, ...}: GONE | ENDED | LOST witness | EPOCH epoch | CORRUPT why | FORK id | DUP id | GAP last | FULL used |
-- CONFLICT things.. | OK id. Behind OK's and DUP's id stands how many replicas are to have it, and when, if any.
-- An epoch is only ever a string: doubles would do, arithmetic on it never would.

local journal, meta_key, guards, producers = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local call, try = redis.call, redis.pcall
local CHUNK = 4000 -- arguments per call: unpack is limited by Lua's stack of 8000

local function wrong(reply)
  local why = type(reply) == 'table' and reply['err']
  return why and tostring(why)
end

-- Who are we, and is history the one the caller knows?
local meta = try('HMGET', meta_key, 'uid', 'epoch', 'version', 'tip', 'floor', 'replid', 'fork', 'room', 'replicas', 'sealed')
if wrong(meta) then return {'CORRUPT', 'meta: ' .. wrong(meta)} end
if not meta[1] or meta[1] ~= ARGV[1] then return {'GONE'} end
if meta[10] then return {'ENDED'} end
if meta[7] then return {'LOST', meta[7]} end -- until somebody adopts what is left
local epoch = meta[2]
if epoch ~= ARGV[2] then return {'EPOCH', epoch} end
if ARGV[9] == '1' then
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

-- Was it decided on this very history? Two branches may have the same version, even under one epoch.
local decided = tonumber(ARGV[3])
if decided > version then return {'FORK', tip} end
if ARGV[19] ~= '' then
  local at = newest[1]
  if decided ~= version then
    at = call('XRANGE', journal, ARGV[3], ARGV[3], 'COUNT', '1')[1]
  end
  local known, hash = string.match(ARGV[19], '^([^:]+):(%x+)$')
  hash = string.gsub(hash, '%x%x', function(digits) return string.char(tonumber(digits, 16)) end)
  -- one that was trimmed is archived: nobody can tell, and nobody is that late
  if at and (at[1] ~= known or not string.find(at[2][2], hash, 1, true)) then return {'FORK', at[1]} end
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
    if hash == ARGV[8] then return {'DUP', id, meta[9]} end
    return {'CORRUPT', 'producer ' .. producer .. ' used sequence ' .. ARGV[7] .. ' for two payloads'}
  end
  if seq ~= last + 1 then return {'GAP', string.format('%d', last)} end
end

-- Do the premises hold?
local floor = tonumber(meta[5] or '0')
local forgetful = decided < floor -- what is absent may have been bumped since, and pruned
local moved = {}

local function split(text)
  local parts, n = {}, 0
  for part in string.gmatch(text, '[^\n]+') do
    n = n + 1
    parts[n] = part
  end
  return parts, n
end

-- The last bumps of these things, false where there is none.
local function bumps_of(things, count)
  if count == 0 then return things end
  if count <= CHUNK then return call('HMGET', guards, unpack(things, 1, count)) end
  local all, n = {}, 0
  for first = 1, count, CHUNK do
    for _, bump in ipairs(call('HMGET', guards, unpack(things, first, math.min(first + CHUNK - 1, count)))) do
      n = n + 1
      all[n] = bump
    end
  end
  return all
end

local function check_since(things, count)
  local found = bumps_of(things, count)
  for i = 1, count do
    local bump = found[i]
    if bump then
      if tonumber(string.match(bump, '^%d+')) > decided then moved[#moved + 1] = things[i] end
    elseif forgetful then
      moved[#moved + 1] = things[i]
    end
  end
end

local function check_absent(things, count)
  local found = bumps_of(things, count)
  for i = 1, count do -- a job's guard may have been pruned since: a submission that comes again so late is none
    if found[i] or (forgetful and string.sub(things[i], 1, 4) == 'job/') then moved[#moved + 1] = things[i] end
  end
end

-- By id. A bare version (in the table of an older program, or of a caller who knows no more) stands for any branch's.
local function same(found, wanted)
  if not found or found == wanted then return found ~= false end
  if string.find(found, '-', 1, true) and string.find(wanted, '-', 1, true) then return false end
  return string.match(found, '^%d+') == string.match(wanted, '^%d+')
end

local since_bumped, nsince_bumped = split(ARGV[12])
local absent_bumped, nabsent_bumped = split(ARGV[14])
check_since(split(ARGV[11]))
check_since(since_bumped, nsince_bumped)
check_absent(split(ARGV[13]))
check_absent(absent_bumped, nabsent_bumped)
if ARGV[17] ~= '' then
  local things, count = split(ARGV[17])
  local found, wanted = bumps_of(things, count), split(ARGV[18])
  for i = 1, count do
    if not same(found[i], wanted[i]) then moved[#moved + 1] = things[i] end
  end
end
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
local room = ARGV[10] == 'meta' and meta[8] or ARGV[10]
if (tonumber(room) or 0) > 0 then
  local used = string.match(call('INFO', 'memory'), 'used_memory:(%d+)')
  if tonumber(used) > tonumber(room) then return {'FULL', used, room} end
end

-- From here on everything is written.
local new = string.format('%d', version + 1)
local id = new .. '-' .. epoch
local time = call('TIME')
local header = ARGV[4] .. '\176' .. string.format('%010d%06d', tonumber(time[1]), tonumber(time[2]))
local added = try('XADD', journal, id, 'h', header, 'p', ARGV[5])
if wrong(added) then -- the first write: nothing else has happened
  if string.find(wrong(added), 'smaller', 1, true) then return {'CORRUPT', 'journal: ' .. wrong(added)} end
  return added
end
local row, n = {'!', new}, 2
local function by_id(thing) -- what exact guards name: a version alone would also fit another branch's entry
  return thing == 'config' or string.sub(thing, 1, 8) == 'attempt/'
end
local function bump(things, count)
  for i = 1, count do
    row[n + 1] = things[i]
    row[n + 2] = by_id(things[i]) and id or new
    n = n + 2
    if n >= CHUNK then
      call('HSET', guards, unpack(row, 1, n))
      n = 0
    end
  end
end
bump(since_bumped, nsince_bumped)
bump(absent_bumped, nabsent_bumped)
bump(split(ARGV[15]))
if n > 0 then call('HSET', guards, unpack(row, 1, n)) end
local set, nset = split(ARGV[20])
local ids = split(ARGV[21])
for i = 1, nset do
  call('HSET', guards, set[i], ids[i])
end
local cleared, ncleared = split(ARGV[16])
for first = 1, ncleared, CHUNK do
  call('HDEL', guards, unpack(cleared, first, math.min(first + CHUNK - 1, ncleared)))
end
for i = 5, #KEYS do
  call('XADD', KEYS[i], id, 'm', ARGV[i + 17])
end
if producer ~= '' then
  call('HSET', producers, producer, ARGV[7] .. ' ' .. id .. ' ' .. ARGV[8])
end
call('HSET', meta_key, 'version', new, 'tip', id)
return {'OK', id, meta[9]}
