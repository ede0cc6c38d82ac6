-- Which nodes are live, all in Redis time.
-- KEYS: nodes
-- Returns {time (ms), node, ...}.
local now = now_ms()
local answer = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. string.format('%.0f', now), '+inf')
table.insert(answer, 1, now)
return answer
