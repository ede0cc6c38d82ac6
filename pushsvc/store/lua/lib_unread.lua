-- Counting what is unread; goes after the marks and the read state.

-- Most bytes of bodies, about, that one call reads to bring the read state up to date; less for one of many
-- that share a call.
local CATCH_UP_BYTES, CATCH_UP_SHARE = 262144, 65536
-- Most entries that are read at once: those that follow may be larger than those before.
local CHUNK = 32

-- Have the sets live as long as the log, which never expires where somebody has made it so.
local function keep_read_state(log)
  local life = redis.call('PTTL', log)
  for _, which in ipairs(life > 0 and {UNREAD, READ, ARCHIVED} or {}) do
    redis.call('PEXPIRE', set_of(log, which), life)
  end
end

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
-- Where those, or a loss of Redis, have taken out what was counted, all is looked at once more (' again' and how
-- many signals there were so far). `stored` and `seen` are what the cursors have of STORED and SEEN, `bytes` how
-- many it may read.
local function catch_up(log, cursors, stored, seen, bytes)
  if not (stored or seen) and redis.call('EXISTS', cursors) == 0 then
    return true -- who asks about nobody leaves nothing behind
  end
  local length = redis.call('XLEN', log)
  local upto, count, acked, again = string.match(seen or '', '^(%S+) (%d+) (%S+)(.*)$')
  if not upto then
    upto, count, acked, again = '0-0', 0, furthest(cursors), ''
  end
  count = tonumber(count)
  local signals = tonumber(string.match(again, '%d+$') or '') -- nil where only what is new is looked at
  if seen and upto == (stored or '0-0') and count == length and not signals then
    return true
  end
  local size, looked, most, found, expires = 0, 0, 4, {}, {}
  local whole
  repeat
    local entries = redis.call('XRANGE', log, '(' .. upto, '+', 'COUNT', most)
    for _, entry in ipairs(entries) do
      local fields, signal = entry[2], false
      for i = 5, #fields, 2 do
        signal = signal or fields[i] == SIGNAL
      end
      if signal then
        signals = signals and signals + 1
      else
        found[#found + 1] = entry[1]
        expires[entry[1]] = fields[2]
      end
      upto, looked, size = entry[1], looked + 1, size + #fields[4]
    end
    whole = #entries < most
    most = math.min(CHUNK, 1 + math.floor((bytes - size) * looked / (size + 1)))
  until whole or size >= bytes
  count = count + looked
  for _, which in ipairs(signals and {UNREAD, READ, ARCHIVED} or {}) do
    local double = {}
    for first = 1, #found, 1000 do
      local last = math.min(first + 999, #found)
      for i, there in ipairs(redis.call('ZMSCORE', set_of(log, which), unpack(found, first, last))) do
        local id = found[first + i - 1]
        if there and expires[id] then
          expires[id] = nil
        elseif there then
          double[#double + 1] = id
        end
      end
    end
    change('ZREM', set_of(log, which), double)
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
  if whole and count ~= length then
    upto, count, signals = '0-0', 0, 0
  elseif whole then
    if signals then
      local kept = 0
      for _, which in ipairs({UNREAD, READ, ARCHIVED}) do
        kept = kept + redis.call('ZCOUNT', set_of(log, which), '-inf', '+inf')
      end
      -- So many are in the sets, and no longer in the log.
      local surplus = kept - (length - signals)
      local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
      for _, which in ipairs({UNREAD, READ, ARCHIVED}) do
        local gone = {}
        for _, id in ipairs(surplus > 0 and redis.call('ZRANGE', set_of(log, which), 0, -1) or {}) do
          if surplus > #gone
              and (not oldest or less(id, oldest[1]) or #redis.call('XRANGE', log, id, id) == 0) then
            gone[#gone + 1] = id
          end
        end
        surplus = surplus - change('ZREM', set_of(log, which), gone)
      end
    end
    upto, signals = stored or upto, nil
  end
  seen = upto .. ' ' .. count .. ' ' .. acked .. (signals and ' again ' .. signals or '')
  redis.call('HSET', cursors, SEEN, seen)
  if whole and signals and size < bytes / 2 then
    return catch_up(log, cursors, stored, seen, bytes - size)
  end
  return whole and not signals
end

-- How many of a mailbox are unread, -1 where that takes another call; `stored` and `seen` as above.
local function count_unread(log, cursors, stored, seen, now, bytes)
  if seen and string.find(seen, '^%d+%-%d+ 0 %S+$') and string.match(seen, '^%S+') == (stored or '0-0') then
    return 0 -- nothing was kept when somebody counted last, and nothing has come since
  end
  if not catch_up(log, cursors, stored, seen, bytes or CATCH_UP_BYTES) then
    return -1
  end
  return redis.call('ZCOUNT', set_of(log, UNREAD), string.format('(%.0f', now), '+inf')
end
