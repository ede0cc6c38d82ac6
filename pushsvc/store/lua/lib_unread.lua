-- Counting what is unread; goes after the marks and the read state.

-- Put the sets of the read state right, where nodes of before have changed the log, or none of these nodes has
-- seen it yet. What is new there is read if a device has acknowledged it: those nodes knew nothing else.
-- `stored` and `seen` are what the cursors have of STORED and SEEN.
local function reconcile(log, cursors, stored, seen)
  local length = redis.call('XLEN', log)
  local is = seen_as(stored, length)
  if is == (seen or NOTHING_SEEN) then
    return
  end
  local since, before = string.match(seen or NOTHING_SEEN, '^(%S+) (%d+)$')
  local expires, ids -- of all that has a read state after `since`

  local function look(from)
    local looked, last = 0, from
    expires, ids = {}, {}
    repeat
      local entries = redis.call('XRANGE', log, '(' .. last, '+', 'COUNT', 64)
      for _, entry in ipairs(entries) do
        local id, fields, signal = entry[1], entry[2], false
        for i = 5, #fields, 2 do
          signal = signal or fields[i] == SIGNAL
        end
        if not signal then
          expires[id] = fields[2]
          ids[#ids + 1] = id
        end
        last = id
      end
      looked = looked + #entries
    until #entries < 64
    return looked
  end

  if before + look(since) ~= length then
    since = '0-0' -- something of before that is gone
    look(since)
  end
  for _, which in ipairs({UNREAD, READ, ARCHIVED}) do
    local set, gone = set_of(log, which), {}
    for _, id in ipairs(redis.call('ZRANGE', set, 0, -1)) do
      if expires[id] then
        expires[id] = nil
      elseif less(since, id) then
        gone[#gone + 1] = id
      end
    end
    change('ZREM', set, gone)
  end
  local acked, unread, read = furthest(cursors), {0, '0-0'}, {}
  for _, id in ipairs(ids) do
    if expires[id] then
      local new = less(acked, id) and unread or read
      new[#new + 1] = expires[id]
      new[#new + 1] = id
    end
  end
  change('ZADD', set_of(log, UNREAD), unread)
  change('ZADD', set_of(log, READ), read)
  local left = redis.call('PTTL', log)
  for _, which in ipairs({UNREAD, READ, ARCHIVED}) do
    redis.call('PEXPIRE', set_of(log, which), math.max(left, 0))
  end
  if stored then
    redis.call('HSET', cursors, SEEN, is)
  end
end

-- How many of a mailbox are unread; `stored` and `seen` as above.
local function count_unread(log, cursors, stored, seen, now)
  reconcile(log, cursors, stored, seen)
  return redis.call('ZCOUNT', set_of(log, UNREAD), string.format('(%.0f', now), '+inf')
end
