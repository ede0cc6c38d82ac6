-- Register a node as a listener of a feed and read from it, in one step: whatever is published is
-- either in the answer or routed to the node.
-- WITH: marks, entry, backlog, state
-- KEYS: listeners, log, cursors, latest, order
-- ARGV: node id, how many listen there, position ('' = the state), count, bytes, retention (ms),
--       and of the state: after which id to go on, the head at which it began ('' = now)
-- Returns a backlog. Without a position it is the state, the latest value of each key, and the values
-- themselves are left to be read by their keys, since what goes through a script costs ten times as
-- much: {'0-0', head, start, upto, gap, 'state', id, key, id, key, ...}.
local listeners, log, cursors, latest, order = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local since, count, bytes = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local retention = tonumber(ARGV[6])
local keep_ms = retention * 2
redis.call('HSET', listeners, ARGV[1], ARGV[2])
if keep_alive(listeners, keep_ms) then
  redis.call('PEXPIRE', cursors, keep_ms)
end
local meta = redis.call('HMGET', cursors, HEAD, STORED, TRIMMED, FIRST, ORDERED)
if since ~= '' then
  return backlog(log, meta, nil, since, since, count, bytes, '')
end

local head, stored, first, ordered = meta[1] or '0-0', meta[2], meta[4], meta[5]
local start, upto, gap = ARGV[7], head, ''
if start ~= '0-0' and (less(head, start) or (first and less(start, first))) then
  -- Redis was emptied or rolled back since the state began: it begins anew.
  start, gap = '0-0', 'reset'
elseif ARGV[8] ~= '' and less(ARGV[8], head) then
  upto = ARGV[8]
end
-- Only where it begins: what changes after that is newer, and comes as what is published. Put right amid
-- a state, what was missing could be before the place where that goes on.
if start == '0-0' and not in_order(latest, order, stored, ordered) then
  put_in_order(latest, order, retention)
  if stored then
    redis.call('HSET', cursors, ORDERED, stored)
  end
end

local now = now_ms()
local answer = {'0-0', head, start, upto, gap, 'state'}
local last, looked, size, most = start, 0, 0, 16
while true do
  local entries = redis.call('XRANGE', order, '(' .. last, upto, 'COUNT', most)
  for _, entry in ipairs(entries) do
    if looked == count or size >= bytes then
      answer[4] = last
      return answer
    end
    local id, key = entry[1], entry[2][1]
    local expires, length = string.match(entry[2][2], '^(%d+) (%d+)$')
    if tonumber(expires) > now then
      answer[#answer + 1] = id
      answer[#answer + 1] = key
    else
      remove_latest(latest, order, id, key)
      redis.call('XDEL', log, id)
    end
    last, looked, size = id, looked + 1, size + length
  end
  if #entries < most then
    return answer
  end
  -- As many as will do, if they are like those before.
  most = 1 + math.max(0, math.min(63, count - looked, math.floor((bytes - size) * looked / size)))
end
