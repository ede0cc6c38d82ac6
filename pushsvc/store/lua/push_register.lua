-- Register a device for pushes.
-- KEYS: devices
-- ARGV: device, its registration, most devices, how long it lasts (ms)
-- Returns what was registered of the device before, '' for nothing; false where there are too many.
local devices, device = KEYS[1], ARGV[1]
local there = redis.call('HGET', devices, device)
if not there and redis.call('HLEN', devices) >= tonumber(ARGV[3]) then
  return false
end
redis.call('HSET', devices, device, ARGV[2])
redis.call('PEXPIRE', devices, ARGV[4])
return there or ''
