-- Add a revocation as of now, and never weaken one that is there.
-- KEYS: entries, order, ends, revision, and in a namespace with a name: changed
-- ARGV: field, how long to keep it (ms), issued before (s, '' = by now), how much clocks may differ
--       (s), most entries, a name for a new data set, and with a fifth key: the namespace, and how
--       long nodes are told that something was revoked there (ms)
-- Returns 'until issued', 0 where 'issued before' is still to come, or false where there are as many
-- as may be.
local entries, order, ends, revision = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local field, tolerance = ARGV[1], tonumber(ARGV[4])
local now_exact = now_ms() / 1000
local now = math.floor(now_exact)

-- What was issued by now may say that it is a little younger: its issuer's clock is another one.
local issued = tonumber(ARGV[3]) or now + tolerance
if issued > now + tolerance then
  return 0
end
-- Nodes grant expired tokens the same, by their own clocks.
local till = math.ceil(now_exact + ARGV[2] / 1000) + 2 * tolerance

-- A few at a time: no write takes long because many are over.
local over = redis.call('ZRANGEBYSCORE', ends, '-inf', now, 'LIMIT', 0, 500)
if #over > 0 then
  redis.call('HDEL', entries, unpack(over))
  redis.call('ZREM', order, unpack(over))
  redis.call('ZREM', ends, unpack(over))
end

local held = redis.call('HGET', entries, field)
if held then
  local held_till, held_issued = string.match(held, '^(%d+) (%d+)$')
  till = math.max(till, tonumber(held_till))
  issued = math.max(issued, tonumber(held_issued))
elseif redis.call('HLEN', entries) >= tonumber(ARGV[5]) then
  return false
end

local value = string.format('%.0f %.0f', till, issued)
redis.call('HSETNX', revision, 'epoch', ARGV[6])
redis.call('HSET', entries, field, value)
redis.call('ZADD', order, redis.call('HINCRBY', revision, 'seq', 1), field)
redis.call('ZADD', ends, till, field)
local last = redis.call('ZRANGE', ends, -1, -1, 'WITHSCORES')
for _, key in ipairs(KEYS) do
  redis.call('EXPIREAT', key, last[2])
end

local changed = KEYS[5]
if changed then
  -- By time, and in order where the time went back: nobody was told of this one before.
  local newest = redis.call('ZREVRANGE', changed, 0, 0, 'WITHSCORES')[2] or 0
  local score = math.max(now_ms(), newest + 1)
  redis.call('ZREMRANGEBYSCORE', changed, '-inf', string.format('%.0f', now_ms() - ARGV[8]))
  redis.call('ZADD', changed, string.format('%.0f', score), ARGV[7])
  redis.call('PEXPIRE', changed, ARGV[8])
end
return value
