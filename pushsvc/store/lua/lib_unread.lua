-- Counting what is unread; goes after the marks and the read state.

-- Most bytes of bodies, about, that one call reads to bring the read state up to date.
local CATCH_UP_BYTES = 262144

-- Take ids out of a set, or put them into it with the expiry of each before it; how many.
local function change(command, set, members)
  local changed = 0
  for first = 1, #members, 1000 do
    changed = changed + redis.call(command, set, unpack(members, first, math.min(first + 999, #members)))
  end
  return changed
end

-- Bring the read state up to date with the log, as far as one call may; whether it is. What is new is unread,
-- but where nobody has counted yet what any device has acknowledged is read: nodes of before knew nothing else.
-- Where those, or a loss of Redis, have taken out what was counted, all is looked at once more (' again').
-- `stored` and `seen` are what the cursors have of STORED and SEEN.
local function catch_up(log, cursors, stored, seen)
  if not (stored or seen) and redis.call('EXISTS', cursors) == 0 then
    return true -- who asks about nobody leaves nothing behind
  end
  local length = redis.call('XLEN', log)
  local upto, count, acked, again = string.match(seen or '', '^(%S+) (%d+) (%S+)(.*)$')
  if not upto then
    upto, count, acked, again = '0-0', 0, furthest(cursors), ''
  end
  count = tonumber(count)
  if seen and upto == (stored or '0-0') and count == length and again == '' then
    return true
  end
  local since, size, found, expires = upto, 0, {}, {}
  local whole
  repeat
    local entries = redis.call('XRANGE', log, '(' .. upto, '+', 'COUNT', 32)
    for _, entry in ipairs(entries) do
      local fields, signal = entry[2], false
      for i = 5, #fields, 2 do
        signal = signal or fields[i] == SIGNAL
      end
      if not signal then
        found[#found + 1] = entry[1]
        expires[entry[1]] = fields[2]
      end
      upto, count, size = entry[1], count + 1, size + #fields[4]
    end
    whole = #entries < 32
  until whole or size >= CATCH_UP_BYTES
  if again ~= '' then
    for _, which in ipairs({UNREAD, READ, ARCHIVED}) do
      local gone = {}
      for _, id in ipairs(redis.call('ZRANGE', set_of(log, which), 0, -1)) do
        if expires[id] then
          expires[id] = nil
        elseif less(since, id) and (whole or not less(upto, id)) then
          gone[#gone + 1] = id
        end
      end
      change('ZREM', set_of(log, which), gone)
    end
  end
  local unread, read = {}, {}
  for _, id in ipairs(found) do
    if expires[id] then
      local new = less(acked, id) and unread or read
      new[#new + 1] = expires[id]
      new[#new + 1] = id
    end
  end
  change('ZADD', set_of(log, UNREAD), unread)
  change('ZADD', set_of(log, READ), read)
  if #found > 0 then
    keep_read_state(log)
  end
  if whole then
    again = ''
    if count ~= length then
      upto, count, again = '0-0', 0, ' again'
    elseif stored then
      upto = stored
    end
  end
  seen = upto .. ' ' .. count .. ' ' .. acked .. again
  redis.call('HSET', cursors, SEEN, seen)
  if whole and again ~= '' and size < CATCH_UP_BYTES / 2 then
    return catch_up(log, cursors, stored, seen)
  end
  return whole and again == ''
end

-- How many of a mailbox are unread, -1 where that takes another call; `stored` and `seen` as above.
local function count_unread(log, cursors, stored, seen, now)
  if not catch_up(log, cursors, stored, seen) then
    return -1
  end
  return redis.call('ZCOUNT', set_of(log, UNREAD), string.format('(%.0f', now), '+inf')
end
