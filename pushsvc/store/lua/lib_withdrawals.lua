-- Taking entries out of a mailbox; goes after the marks and the read state.

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

-- Take entries out of a mailbox, and of its read state; the marks tell those that may hold them. The reason is
-- followed by the device where they are for one.
local function withdraw(log, cursors, marks, ids, reason)
  local gone = {}
  for _, id in ipairs(ids) do
    redis.call('HDEL', marks, 'a:' .. id)
    redis.call('HSET', marks, 'w:' .. id, reason)
    if redis.call('XDEL', log, id) == 1 then
      gone[#gone + 1] = id
    end
  end
  if #gone > 0 then
    forget(log, cursors, gone)
  end
end

-- Most withdrawals that a mailbox remembers, for those that come back.
local MOST_WITHDRAWN = 256

-- Forget the oldest withdrawals where there are too many; to be called once after some.
local function bound_withdrawn(marks)
  if redis.call('HLEN', marks) <= MOST_WITHDRAWN then
    return
  end
  local fields = redis.call('HKEYS', marks)
  local count = 0
  for _, field in ipairs(fields) do
    if string.byte(field) == 119 then -- 'w'
      count = count + 1
    end
  end
  if count <= MOST_WITHDRAWN then
    return
  end
  local withdrawn = marked(fields, 'w')
  for i = 1, count - math.floor(MOST_WITHDRAWN * 3 / 4) do
    redis.call('HDEL', marks, 'w:' .. withdrawn[i][3])
  end
end
