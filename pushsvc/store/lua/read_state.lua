-- Change the read state of entries of a mailbox, and count what is unread.
-- WITH: marks, read_state, unread
-- KEYS: log, cursors, listeners
-- ARGV: 'read', 'unread', 'archive' or 'unarchive'; '1' for all that came up to an id; that id, or the ids
-- Returns {unread, how many were looked at, listener, device and time, ...}: the listeners only where
-- something has changed. Where the read state takes another call to be up to date, nothing is changed, and unread
-- is -1.
local log, cursors, listeners = KEYS[1], KEYS[2], KEYS[3]
local verb, whole, upto = ARGV[1], ARGV[2] == '1', ARGV[3]
local FROM = {read = {UNREAD}, unread = {READ, ARCHIVED}, archive = {UNREAD, READ}, unarchive = {ARCHIVED}}
local TO = {read = READ, unread = UNREAD, archive = ARCHIVED, unarchive = READ}
local now = now_ms()
local from = string.format('(%.0f', now)
local fields = redis.call('HMGET', cursors, STORED, SEEN)
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
    looked = looked + #ARGV - 2
    for i, expires in ipairs(redis.call('ZMSCORE', set, unpack(ARGV, 3))) do
      if expires and tonumber(expires) > now then
        found[#found + 1] = expires
        found[#found + 1] = ARGV[2 + i]
      end
    end
  end
  return found
end

local unread = count_unread(log, cursors, fields[1], fields[2], now)
if unread >= 0 and #ARGV > 2 then
  local to = set_of(log, TO[verb])
  for _, which in ipairs(FROM[verb]) do
    local members = meant(set_of(log, which))
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
local answer = moved > 0 and redis.call('HGETALL', listeners) or {}
table.insert(answer, 1, looked)
table.insert(answer, 1, unread)
return answer
