-- Shared by every script: this text is put before each of them.

-- Fields of the cursors hash that are not devices; a device name cannot hold a tilde.
local HEAD, STORED, TRIMMED, EVICTED = '~head', '~stored', '~trimmed', '~evicted'
-- The first id that was published to this data set.
local FIRST = '~first'

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

-- What follows `position` in a feed, at most `count` entries and about `bytes` bytes.
-- Returns {cursor, head, start, upto, gap, id, body, id, body, ...}: everything after `start`
-- up to `upto` is accounted for; a false body stands for an entry whose time to live has passed.
local function backlog(log, cursors, cursor, held, count, bytes)
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
  local answer = {cursor, head, start, upto, gap}
  for i, entry in ipairs(entries) do
    local id, expires, body = entry[1], tonumber(entry[2][2]), entry[2][4]
    answer[#answer + 1] = id
    if expires <= now then
      answer[#answer + 1] = false
    else
      answer[#answer + 1] = body
      size = size + #body
    end
    if size >= bytes or i == count then
      answer[4] = id
      break
    end
  end
  return answer
end
