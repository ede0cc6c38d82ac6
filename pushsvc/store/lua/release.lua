-- Release leased feeds of a work queue.
-- KEYS: due, owed, claims (the leases)
-- ARGV: how long what a feed was put on the work queue for may take to happen (ms), how soon to look
--       again until then (ms), and for each feed its name, its lease, in how long to look again (ms,
--       '' = no more), '1' where nobody is to look before that
local due, owed, claims = KEYS[1], KEYS[2], KEYS[3]
local settling, again = tonumber(ARGV[1]), tonumber(ARGV[2])
local now = now_ms()
for i = 3, #ARGV, 4 do
  local feed, claim, wait, rest = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 3] == '1'
  if redis.call('HGET', claims, feed) == claim then
    local began = tonumber(string.match(claim, '^%d+ (%d+)'))
    local last = tonumber(redis.call('HGET', owed, feed) or '0')
    local at = wait and now + wait
    if rest then
      redis.call('HSET', claims, feed, string.format('%.0f %.0f rest', at, now))
    else
      redis.call('HDEL', claims, feed)
      if last >= began then
        at = now -- it was put there again meanwhile
      elseif last > now - settling and (not at or at > now + again) then
        at = now + again -- whoever put it there may be about to do what it is there for
      end
    end
    if at then
      redis.call('ZADD', due, at, feed)
    else
      redis.call('ZREM', due, feed)
      redis.call('HDEL', owed, feed)
    end
  end
end
return #ARGV
