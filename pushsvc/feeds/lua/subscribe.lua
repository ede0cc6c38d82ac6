-- Register a node as a listener of a feed and read from it, in one step: whatever is published is
-- either in the answer or routed to the node.
-- KEYS: listeners, log, cursors, latest
-- ARGV: node id, how many listen there, position ('' = the state), count, bytes, retention (ms),
--       and of the state: after which id to go on, and the head at which it began ('' = now)
-- Returns a backlog. Without a position it is the state: the latest value of each key.
local listeners, log, cursors, latest = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local since, count, bytes = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local keep_ms = tonumber(ARGV[6]) * 2
redis.call('HSET', listeners, ARGV[1], ARGV[2])
redis.call('PEXPIRE', listeners, keep_ms)
redis.call('PEXPIRE', cursors, keep_ms)
if since ~= '' then
  return backlog(log, cursors, nil, since, since, count, bytes, '')
end

local meta = redis.call('HMGET', cursors, HEAD, FIRST)
local head, first = meta[1] or '0-0', meta[2]
local start, upto, gap = ARGV[7], head, ''
if start ~= '0-0' and (less(head, start) or (first and less(start, first))) then
  -- Redis was emptied or rolled back since the state began: it begins anew.
  start, gap = '0-0', 'reset'
elseif ARGV[8] ~= '' and less(ARGV[8], head) then
  upto = ARGV[8]
end
local found = {}
local now = now_ms()
local values = redis.call('HVALS', latest)
for _, value in ipairs(values) do
  local id, expires, body = string.match(value, '^(%S+) (%S+) ()')
  if tonumber(expires) > now and less(start, id) and not less(upto, id) then
    local ms, seq = split(id)
    found[#found + 1] = {id, ms, seq, value, body}
  end
end
table.sort(found, function(a, b) return a[2] < b[2] or (a[2] == b[2] and a[3] < b[3]) end)
local answer = {'0-0', head, start, upto, gap, ''}
local size = 0
for i, each in ipairs(found) do
  local body = string.sub(each[4], each[5])
  answer[#answer + 1] = each[1]
  answer[#answer + 1] = body
  size = size + #body
  if (size >= bytes or i == count) and i < #found then
    answer[4] = each[1]
    break
  end
end
return answer
