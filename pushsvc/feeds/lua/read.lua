-- Read on from a position, or from the device's cursor where that is further or none is given.
-- KEYS: log, cursors
-- ARGV: device, position held ('' = from the cursor), count, bytes
local cursor = redis.call('HGET', KEYS[2], ARGV[1]) or '0-0'
return backlog(KEYS[1], KEYS[2], cursor, ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]))
