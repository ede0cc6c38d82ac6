-- Move a device's cursor forward; never back, and never past what was published.
-- KEYS: cursors
-- ARGV: device, id, retention (ms)
-- Returns the device's cursor.
local cursors, device, id = KEYS[1], ARGV[1], ARGV[2]
local fields = redis.call('HMGET', cursors, device, HEAD)
local cursor, head = fields[1] or '0-0', fields[2] or '0-0'
if less(cursor, id) and not less(head, id) then
  redis.call('HSET', cursors, device, id)
  redis.call('PEXPIRE', cursors, tonumber(ARGV[3]) * 2)
  return id
end
return cursor
