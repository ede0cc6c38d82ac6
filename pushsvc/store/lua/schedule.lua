-- Keep a publish until its time has come.
-- WITH: schedule
-- KEYS: times, scheduled, and the idempotency key where the caller gave one
-- ARGV: its id, when (ms), the item, most that wait, most bytes of them, retention (ms), how long ago
--       `when` may be (ms), how long after `when` a repeated request is known (ms), and of this feed what
--       the names of the keys begin with that say what something scheduled became
-- Returns {'', its id}, which is the first one's for a repeated request, unless that was recalled; or why
-- it is refused: {'past' or 'far', time (ms)}, {'full', in how long the first of them goes out (ms)}.
local times, scheduled, once = KEYS[1], KEYS[2], KEYS[3]
local id, at, item, retention = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[6])
local now = now_ms()
-- How long a repeated request is known from now on, if what it asked for waits until `time`.
local function remembered(time)
  return math.max(0, time - now) + tonumber(ARGV[8])
end

if once then
  local seen = redis.call('GET', once)
  -- Which id that is only Redis knows; its keys are in the slot of the others.
  if seen and redis.call('GET', ARGV[9] .. seen) ~= 'recalled' then
    -- A write, so that what waits for a durability waits for the first request's as well.
    redis.call('PEXPIRE', once, remembered(tonumber(redis.call('ZSCORE', times, seen) or now)))
    return {'', seen}
  end
end

if at < now - tonumber(ARGV[7]) then
  return {'past', now}
end
if at > now + retention then
  return {'far', now}
end
local size = WAITING + #item
local bytes = tonumber(redis.call('HGET', scheduled, BYTES) or '0')
-- One field is the sum of the bytes.
if redis.call('HLEN', scheduled) > tonumber(ARGV[4]) or bytes + size > tonumber(ARGV[5]) then
  local first = redis.call('ZRANGE', times, 0, 0, 'WITHSCORES')[2]
  return {'full', first and math.max(0, tonumber(first) - now) or 0}
end
redis.call('ZADD', times, math.max(at, now), id)
redis.call('HSET', scheduled, id, item, BYTES, string.format('%.0f', bytes + size))
-- What nobody sent at its time, because no node was there, is late and not lost.
redis.call('PEXPIRE', times, retention * 2)
redis.call('PEXPIRE', scheduled, retention * 2)
if once then
  redis.call('SET', once, id, 'PX', remembered(at))
end
return {'', id}
