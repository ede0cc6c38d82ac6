-- Take or renew a node's lease, and say which nodes are live, all in Redis time.
-- KEYS: nodes
-- ARGV: node id, lease (ms), '1' to take it and '0' to renew it
-- Returns {time (ms), 1, node, ...}, or {time (ms), 0} where the lease has lapsed.
local nodes, node, lease = KEYS[1], ARGV[1], tonumber(ARGV[2])
local now = now_ms()
if ARGV[3] == '0' then
  local expires = tonumber(redis.call('ZSCORE', nodes, node) or '0')
  if expires <= now then
    redis.call('ZREM', nodes, node)
    return {now, 0}
  end
end
redis.call('ZREMRANGEBYSCORE', nodes, '-inf', now)
redis.call('ZADD', nodes, now + lease, node)
redis.call('PEXPIRE', nodes, lease * 10)
local answer = redis.call('ZRANGE', nodes, 0, -1)
table.insert(answer, 1, now)
table.insert(answer, 2, 1)
return answer
