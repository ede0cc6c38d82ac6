-- The read state of a mailbox: each entry of the log that its user is to see is in one of three sorted sets,
-- unread, read or archived, by its expiry. Their keys are no KEYS: they are that of the log with another end,
-- in its slot, and live as long. A publish puts nothing into them: who counts brings them up to date. SEEN says how
-- far they are: up to which id, how many entries of the log that is, and which of these were acknowledged
-- before anybody counted.

-- The key of a set.
local function set_of(log, which)
  return string.sub(log, 1, -#LOG - 1) .. which
end

-- Have the sets live as long as the log, which never expires where somebody has made it so.
local function keep_read_state(log)
  local life = redis.call('PTTL', log)
  for _, which in ipairs(life > 0 and {UNREAD, READ, ARCHIVED} or {}) do
    redis.call('PEXPIRE', set_of(log, which), life)
  end
end

-- Entries have left the log. That is done, so this may not fail: a set may be elsewhere while its slot moves.
-- Then SEEN stays as it was, and who counts next looks at all again.
local function forget(log, cursors, ids)
  local upto, count, rest = string.match(redis.call('HGET', cursors, SEEN) or '', '^(%S+) (%d+)(.*)$')
  local gone = {}
  for _, id in ipairs(upto and ids or {}) do
    if not less(upto, id) then
      gone[#gone + 1] = id
    end
  end
  local left = #gone
  for _, which in ipairs({UNREAD, READ, ARCHIVED}) do
    for first = 1, left > 0 and #gone or 0, 1000 do
      local removed =
        redis.pcall('ZREM', set_of(log, which), unpack(gone, first, math.min(first + 999, #gone)))
      if type(removed) == 'table' then
        return
      end
      left = left - removed
    end
  end
  if #gone > 0 then
    redis.call('HSET', cursors, SEEN, upto .. ' ' .. count - #gone .. rest)
  end
end
