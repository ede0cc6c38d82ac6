-- Register a node as a listener of a feed and read from it, in one step: whatever is published is
-- either in the answer or routed to the node.
-- KEYS: listeners, log, cursors, latest
-- ARGV: node id, how many listen there, position ('' = begin with the state), count, bytes,
--       retention (ms)
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
local head = redis.call('HGET', cursors, HEAD) or '0-0'
local found = {}
local now = now_ms()
local fields = redis.call('HGETALL', latest)
for i = 1, #fields, 2 do
  local id, expires, body = string.match(fields[i + 1], '^(%S+) (%S+) (.*)$')
  if tonumber(expires) > now then
    found[#found + 1] = {id, body}
  end
end
table.sort(found, function(a, b) return less(a[1], b[1]) end)
local answer = {'0-0', head, '0-0', head, '', ''}
for _, each in ipairs(found) do
  answer[#answer + 1] = each[1]
  answer[#answer + 1] = each[2]
end
return answer
