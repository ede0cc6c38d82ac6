-- Recall what is scheduled: it never goes out, if it is not out already.
-- WITH: schedule
-- KEYS: times, scheduled, became
-- ARGV: its id, how long that is remembered (ms)
-- Returns 'recalled'; or the id of the notification that it became; or false where nobody knows it.
local became = KEYS[3]
local was = redis.call('GET', became)
if was then
  -- A write, so that what waits for a durability waits for the first request's as well.
  redis.call('PEXPIRE', became, ARGV[2])
  return was
end
if not unschedule(KEYS[1], KEYS[2], ARGV[1]) then
  return false
end
redis.call('SET', became, 'recalled', 'PX', ARGV[2])
return 'recalled'
