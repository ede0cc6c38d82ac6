-- The sweep: is the connection still registered, and what is the newest id of its feed?
-- RUNS: 64
-- KEYS: listeners, cursors
-- ARGV: connection id, retention (ms)
-- Returns the head, or false where the registration was lost.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  return false
end
local keep_ms = tonumber(ARGV[2]) * 2
-- What renews the one renews the other, or renewed it later.
if keep_alive(KEYS[1], keep_ms) then
  redis.call('PEXPIRE', KEYS[2], keep_ms)
end
return redis.call('HGET', KEYS[2], HEAD) or '0-0'
