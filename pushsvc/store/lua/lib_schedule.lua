-- Publishes that wait for their time.

-- What one takes beside its item, about.
local WAITING = 256

-- Take one out, because it goes out or was recalled; whether it was there.
local function unschedule(times, scheduled, id)
  if redis.call('ZREM', times, id) == 0 then
    return false
  end
  if redis.call('EXISTS', times) == 0 then
    redis.call('DEL', scheduled)
    return true
  end
  local item = redis.call('HGET', scheduled, id) or ''
  redis.call('HDEL', scheduled, id)
  redis.call('HINCRBY', scheduled, BYTES, -(WAITING + #item))
  return true
end
