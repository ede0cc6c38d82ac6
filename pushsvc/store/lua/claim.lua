-- Lease feeds of a work queue that are due; until the lease ends or is released nobody else gets them.
-- KEYS: due, claims (the leases; nodes of before know the key by that name)
-- ARGV: how long the lease lasts (ms), most feeds, whose it is, how long to keep the work queue (ms)
-- Returns {feed, lease, ...}.
local due, claims, most = KEYS[1], KEYS[2], tonumber(ARGV[2])
local now = now_ms()
local ends = now + tonumber(ARGV[1])
local claim = string.format('%.0f %.0f %s', ends, now, ARGV[3])
local answer = {}
for _, feed in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, most)) do
  local held = redis.call('HGET', claims, feed)
  local held_until = held and tonumber(string.match(held, '^%d+'))
  if held_until and held_until > now then
    redis.call('ZADD', due, held_until, feed)
  else
    redis.call('HSET', claims, feed, claim)
    redis.call('ZADD', due, ends, feed)
    answer[#answer + 1] = feed
    answer[#answer + 1] = claim
  end
end
if #answer > 0 then
  redis.call('PEXPIRE', claims, ARGV[4])
end
return answer
