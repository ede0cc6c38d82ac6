-- The receipts of a push were given: nothing more of it is to be done now, or later, or it is forgotten.
-- WITH: marks, entry, read_state, pushes
-- KEYS: log, cursors, devices, pushes
-- ARGV: id, and the devices whose receipts were given
-- Returns 1 where something of it is to be done now.
local log, cursors, devices, pushes, id = KEYS[1], KEYS[2], KEYS[3], KEYS[4], ARGV[1]
local mailbox = string.sub(log, 1, -#LOG - 1)
for i = 2, #ARGV do
  redis.call('HDEL', mailbox .. PUSH .. id, OWED .. ARGV[i])
end
if not redis.call('ZSCORE', pushes, id) then
  return 0
end
local registered, now = redis.call('HGETALL', devices), now_ms()
local found = look_at_push(log, cursors, mailbox, registered, id, now)
return put_off(pushes, id, found, now) and 1 or 0
