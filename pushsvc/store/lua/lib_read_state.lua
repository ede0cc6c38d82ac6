-- The read state of a mailbox: each entry of the log that its user is to see is in one of three sorted sets,
-- unread, read or archived, by its expiry. Their keys are no KEYS: they are that of the log with another end,
-- in its slot. They live as long as the log; what is no entry, 0-0, keeps the unread there while it is empty.

-- What SEEN says of a log with this newest id and so many entries. Where it says something else, a node of
-- before has changed the log, or Redis has lost a part: the sets are put right before they are asked.
local function seen_as(stored, length)
  return (stored or '0-0') .. ' ' .. length
end
local NOTHING_SEEN = '0-0 0'

-- The key of a set.
local function set_of(log, which)
  return string.sub(log, 1, -#LOG - 1) .. which
end

-- Take ids out of a set, or put them into it with the expiry of each before it; how many.
local function change(command, set, members)
  local changed = 0
  for first = 1, #members, 1000 do
    changed = changed + redis.call(command, set, unpack(members, first, math.min(first + 999, #members)))
  end
  return changed
end

-- Entries have left the log.
local function forget(log, ids)
  local left = #ids
  for _, which in ipairs({UNREAD, READ, ARCHIVED}) do
    left = left - (left > 0 and change('ZREM', set_of(log, which), ids) or 0)
  end
end

-- Entries were taken out of the log, of which so many were there still.
local function took_out(log, cursors, ids, removed)
  local fields = redis.call('HMGET', cursors, STORED, SEEN)
  local length = redis.call('XLEN', log)
  if fields[2] == seen_as(fields[1], length + removed) then
    redis.call('HSET', cursors, SEEN, seen_as(fields[1], length))
  end
  forget(log, ids)
end

-- The log was renewed, and all up to an id has left it, where one is given.
local function keep_read_state(log, life, gone)
  redis.call('ZADD', set_of(log, UNREAD), 0, '0-0')
  for _, which in ipairs({UNREAD, READ, ARCHIVED}) do
    local set, old = set_of(log, which), {}
    redis.call('PEXPIRE', set, life)
    for _, id in ipairs(gone and redis.call('ZRANGE', set, 0, -1) or {}) do
      if id ~= '0-0' and not less(gone, id) then
        old[#old + 1] = id
      end
    end
    change('ZREM', set, old)
  end
end
