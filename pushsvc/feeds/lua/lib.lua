-- Shared by every script: this text is put before each of them.

-- Fields of the cursors hash that are not devices; a device name cannot hold a tilde.
local HEAD, STORED, TRIMMED, EVICTED = '~head', '~stored', '~trimmed', '~evicted'
-- The first id that was published to this data set.
local FIRST = '~first'
-- Before a device: its position in the broadcast.
local BROADCAST = '~b:'
-- Before a device: where it began, which it has not acknowledged itself.
local BEGAN = '~s:'

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function split(id)
  local dash = string.find(id, '-', 1, true)
  return tonumber(string.sub(id, 1, dash - 1)), tonumber(string.sub(id, dash + 1))
end

local function less(a, b)
  local a_ms, a_seq = split(a)
  local b_ms, b_seq = split(b)
  return a_ms < b_ms or (a_ms == b_ms and a_seq < b_seq)
end

-- The fields of a hash of marks that begin with `kind` and a colon, as {id, value, id, value, ...}.
-- `a` marks what any one device may settle, `w` what was withdrawn and why, `r` what is owed a receipt.
local function marked(marks, kind)
  local found = {}
  if redis.call('EXISTS', marks) == 1 then
    local fields = redis.call('HGETALL', marks)
    for i = 1, #fields, 2 do
      if string.sub(fields[i], 1, 2) == kind .. ':' then
        found[#found + 1] = string.sub(fields[i], 3)
        found[#found + 1] = fields[i + 1]
      end
    end
  end
  return found
end

-- The newest id that any device has acknowledged.
local function furthest(cursors)
  local newest = '0-0'
  local fields = redis.call('HGETALL', cursors)
  for i = 1, #fields, 2 do
    if string.sub(fields[i], 1, 1) ~= '~' and less(newest, fields[i + 1]) then
      newest = fields[i + 1]
    end
  end
  return newest
end

-- An entry leaves its mailbox. If it is owed a receipt and nobody has acknowledged it, then that is
-- how it ended: later acks of what followed it do not mean it.
-- Returns 1 if it is owed a receipt, and 0 if not.
local function ended(cursors, marks, id, how)
  local mark = redis.call('HGET', marks, 'r:' .. id)
  if not mark then
    return 0
  end
  if string.find(mark, '^%S+ %d+$') and less(furthest(cursors), id) then
    local at = string.format('%.0f', now_ms())
    redis.call('HSET', marks, 'r:' .. id, mark .. ' ' .. how .. ' ' .. at)
  end
  return 1
end

-- Most withdrawals that a mailbox remembers, for those that come back.
local MOST_WITHDRAWN = 256

-- Take an entry out of a mailbox; the mark tells those that may hold it.
local function withdraw(log, marks, id, reason)
  redis.call('XDEL', log, id)
  redis.call('HDEL', marks, 'a:' .. id)
  redis.call('HSET', marks, 'w:' .. id, reason)
  if redis.call('HLEN', marks) <= MOST_WITHDRAWN then
    return
  end
  local withdrawn = marked(marks, 'w')
  if #withdrawn > 2 * MOST_WITHDRAWN then
    local ids = {}
    for i = 1, #withdrawn, 2 do
      ids[#ids + 1] = withdrawn[i]
    end
    table.sort(ids, less)
    for i = 1, #ids - math.floor(MOST_WITHDRAWN * 3 / 4) do
      redis.call('HDEL', marks, 'w:' .. ids[i])
    end
  end
end

-- The time from which on every ack is known: what is not needed for the mailbox's size is trimmed.
local function acks_since(acks)
  if redis.call('EXISTS', acks) == 0 then
    return '0'
  end
  local info = {}
  local fields = redis.call('XINFO', 'STREAM', acks)
  for i = 1, #fields, 2 do
    info[fields[i]] = fields[i + 1]
  end
  if info['entries-added'] == info['length'] then
    return '0'
  end
  return string.match(info['first-entry'][1], '^%d+')
end

-- The acks of an entry of a mailbox and of later ones, as {time and number, device, id, ...}: an entry
-- is acknowledged after it was published.
local function acks_from(acks, id, most)
  local told = {}
  for _, entry in ipairs(redis.call('XRANGE', acks, string.match(id, '^%d+'), '+', 'COUNT', most)) do
    told[#told + 1] = entry[1]
    told[#told + 1] = entry[2][2]
    told[#told + 1] = entry[2][4]
  end
  return told
end

-- What follows a position in a feed, at most `count` entries and about `bytes` bytes.
-- `marks` is nil for feeds from which nothing is withdrawn; what was withdrawn is told from
-- `told` on, nil for the start.
-- Returns {cursor, head, start, upto, gap, extra, id, body, id, body, ...}: everything after `start`
-- up to `upto` is accounted for; a false body stands for an entry whose time to live has passed, a
-- number for one that was withdrawn.
local function backlog(log, cursors, marks, cursor, held, count, bytes, extra, told)
  local meta = redis.call('HMGET', cursors, HEAD, STORED, TRIMMED, FIRST)
  local head, stored, trimmed, first = meta[1] or '0-0', meta[2], meta[3], meta[4]
  local start, gap = cursor, ''
  if held ~= '' and less(cursor, held) then
    start = held
  end
  local position = held == '' and cursor or held
  if less(head, start) or (first and position ~= '0-0' and less(position, first)) then
    -- The data set ends before what the connection has seen, or began after it: Redis was emptied
    -- or rolled back.
    gap = 'reset'
    start = cursor
    if less(head, start) then
      start = '0-0'
    end
  end
  local entries = {}
  if less(start, head) then
    entries = redis.call('XRANGE', log, '(' .. start, '+', 'COUNT', count)
    if #entries == 0 and stored and less(start, stored) and redis.call('EXISTS', log) == 0 then
      trimmed = stored -- the whole log passed its retention
    end
  end
  if gap == '' and trimmed and less(start, trimmed) then
    gap = 'trimmed'
  end
  local now = now_ms()
  local upto = head
  local size = 0
  local found = {}
  for i, entry in ipairs(entries) do
    local id, expires, body = entry[1], tonumber(entry[2][2]), entry[2][4]
    if expires <= now then
      body = false
    else
      size = size + #body
    end
    found[i] = {id, body}
    if size >= bytes or i == count then
      upto = id
      break
    end
  end
  local withdrawn = marks and marked(marks, 'w') or {}
  if #withdrawn > 0 then
    for i = 1, #withdrawn, 2 do
      local id = withdrawn[i]
      if less(told or start, id) and not less(upto, id) then
        found[#found + 1] = {id, withdrawn[i + 1] == 'acked' and 2 or 1}
      end
    end
    table.sort(found, function(a, b) return less(a[1], b[1]) end)
  end
  local answer = {cursor, head, start, upto, gap, extra}
  for _, each in ipairs(found) do
    answer[#answer + 1] = each[1]
    answer[#answer + 1] = each[2]
  end
  return answer
end
