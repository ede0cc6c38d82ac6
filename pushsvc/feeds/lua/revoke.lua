-- Add a revocation, and never weaken one that is there.
-- KEYS: entries, order, ends, revision
-- ARGV: field, until (s), issued before (s), most entries, a name for a new data set
-- Returns 'until issued', or false where there are as many as may be.
local entries, order, ends, revision = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local field, till, issued = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

-- A few at a time: no write takes long because many are over.
local over = redis.call('ZRANGEBYSCORE', ends, '-inf', math.floor(now_ms() / 1000), 'LIMIT', 0, 500)
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
elseif redis.call('HLEN', entries) >= tonumber(ARGV[4]) then
  return false
end

local value = string.format('%.0f %.0f', till, issued)
redis.call('HSETNX', revision, 'epoch', ARGV[5])
redis.call('HSET', entries, field, value)
redis.call('ZADD', order, redis.call('HINCRBY', revision, 'seq', 1), field)
redis.call('ZADD', ends, till, field)
local last = redis.call('ZRANGE', ends, -1, -1, 'WITHSCORES')
for _, key in ipairs(KEYS) do
  redis.call('EXPIREAT', key, last[2])
end
return value
