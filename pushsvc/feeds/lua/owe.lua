-- Put feeds on an agenda, before that happens for which they are to be looked at.
-- KEYS: due, owed
-- ARGV: how long to keep the agenda (ms), then for each feed its name and in how long to look (ms)
local due, owed = KEYS[1], KEYS[2]
local now = now_ms()
for i = 2, #ARGV, 2 do
  redis.call('ZADD', due, 'LT', now + tonumber(ARGV[i + 1]), ARGV[i])
  redis.call('HSET', owed, ARGV[i], string.format('%.0f', now))
end
redis.call('PEXPIRE', due, ARGV[1])
redis.call('PEXPIRE', owed, ARGV[1])
return #ARGV
