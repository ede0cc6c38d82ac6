-- Taking entries out of a mailbox; goes after the marks.

-- Take an entry out of a mailbox; the mark tells those that may hold it. Returns 1 if it was there.
local function withdraw(log, marks, id, reason)
  redis.call('HDEL', marks, 'a:' .. id)
  redis.call('HSET', marks, 'w:' .. id, reason)
  return redis.call('XDEL', log, id)
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
