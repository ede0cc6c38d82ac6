-- Taking entries out of a mailbox; goes after the marks and the read state.

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
