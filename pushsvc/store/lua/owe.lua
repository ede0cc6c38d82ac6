-- Put feeds on a work queue, before that happens for which they are to be looked at.
-- KEYS: due, owed
-- ARGV: how long to keep the work queue (ms), then for each feed its name and in how long to look (ms), or
--       '@' and when
local due, owed = KEYS[1], KEYS[2]
local now = now_ms()
for i = 2, #ARGV, 2 do
  local at = tonumber(string.match(ARGV[i + 1], '^@(%d+)$')) or now + tonumber(ARGV[i + 1])
  redis.call('ZADD', due, 'LT', math.min(at, now + tonumber(ARGV[1])), ARGV[i])
  redis.call('HSET', owed, ARGV[i], string.format('%.0f', now))
end
redis.call('PEXPIRE', due, ARGV[1])
redis.call('PEXPIRE', owed, ARGV[1])
return #ARGV
