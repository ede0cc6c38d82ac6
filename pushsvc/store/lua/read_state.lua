-- Change the read state of entries of a mailbox, and count what is unread.
-- WITH: marks, read_state, unread
-- KEYS: log, cursors, listeners
-- ARGV: 'read', 'unread', 'archive' or 'unarchive'; '1' for all that came up to an id; '1' where receipts of
--       that were foreseen; that id, or the ids
-- Returns {unread, how many were looked at, listener, device and time, ...}: the listeners only where
-- something has changed. Where the read state takes another call to be up to date, nothing is changed, and unread
-- is -1. Where receipts are to be foreseen first, nothing is changed either, and so many were looked at: -1. Where
-- receipts are owed now, it is -2 minus how many were looked at.
local log, cursors, listeners = KEYS[1], KEYS[2], KEYS[3]
local verb, whole, foreseen, upto = ARGV[1], ARGV[2] == '1', ARGV[3] == '1', ARGV[4]
local FROM = {read = {UNREAD}, unread = {READ, ARCHIVED}, archive = {UNREAD, READ}, unarchive = {ARCHIVED}}
local TO = {read = READ, unread = UNREAD, archive = ARCHIVED, unarchive = READ}
local now = now_ms()
local from = string.format('(%.0f', now)
local fields = redis.call('HMGET', cursors, STORED, SEEN, ASKS)
local looked, moved = 0, 0

-- Of a set the entries that are meant, each with its expiry before it.
local function meant(set)
  local found = {}
  if whole then
    local there = redis.call('ZRANGEBYSCORE', set, from, '+inf', 'WITHSCORES')
    looked = looked + #there / 2
    for i = 1, #there, 2 do
      if not less(upto, there[i]) then
        found[#found + 1] = there[i + 1]
        found[#found + 1] = there[i]
      end
    end
  elseif redis.call('EXISTS', set) == 1 then
    looked = looked + #ARGV - 3
    for i, expires in ipairs(redis.call('ZMSCORE', set, unpack(ARGV, 4))) do
      if expires and tonumber(expires) > now then
        found[#found + 1] = expires
        found[#found + 1] = ARGV[3 + i]
      end
    end
  end
  return found
end

-- Of entries that are read now, those whose publishers are told, each with its publisher.
local mailbox = string.sub(log, 1, -#LOG - 1)
local function who_asked(members, owed)
  for first = 1, #members, 1000 do
    local ids = {}
    for i = first + 1, math.min(first + 999, #members), 2 do
      ids[#ids + 1] = members[i]
    end
    for i, publisher in ipairs(redis.call('HMGET', mailbox .. ASKED, unpack(ids))) do
      if publisher then
        owed[#owed + 1] = {ids[i], publisher}
      end
    end
  end
end

local unread = count_unread(log, cursors, fields[1], fields[2], now)
local owed = {}
if unread >= 0 and #ARGV > 3 then
  local to = set_of(log, TO[verb])
  local found = {}
  for _, which in ipairs(FROM[verb]) do
    found[which] = meant(set_of(log, which))
    if fields[3] and (verb == 'read' or verb == 'archive') then
      who_asked(found[which], owed)
    end
  end
  if #owed > 0 and not foreseen then
    return {unread, -1}
  end
  for _, which in ipairs(FROM[verb]) do
    local members = found[which]
    if #members > 0 then
      moved = moved + change('ZADD', to, members)
      local ids = {}
      for i = 2, #members, 2 do
        ids[i / 2] = members[i]
      end
      change('ZREM', set_of(log, which), ids)
    end
  end
  if moved > 0 then
    keep_read_state(log)
    unread = redis.call('ZCOUNT', set_of(log, UNREAD), from, '+inf')
  end
end
if #owed > 0 then
  local asked, told = mailbox .. ASKED, mailbox .. TOLD
  local life = redis.call('PTTL', asked)
  for _, each in ipairs(owed) do
    redis.call('HSET', told, each[1], each[2] .. ' ' .. string.format('%.0f', now))
    redis.call('HDEL', asked, each[1])
  end
  redis.call('PEXPIRE', told, life)
  looked = -2 - looked
end
local answer = moved > 0 and redis.call('HGETALL', listeners) or {}
table.insert(answer, 1, looked)
table.insert(answer, 1, unread)
return answer
