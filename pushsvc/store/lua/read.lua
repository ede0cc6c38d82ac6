-- Read on from a position, or from the device's cursor where that is further or none is given.
-- WITH: marks, backlog
-- KEYS: log, cursors, and the marks of a mailbox
-- ARGV: device ('' = nobody's), position held ('' = from the cursor), count, bytes
local cursor = ARGV[2]
if ARGV[1] ~= '' then
  cursor = redis.call('HGET', KEYS[2], ARGV[1]) or '0-0'
end
return backlog(KEYS[1], KEYS[2], KEYS[3], cursor, ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), '')
