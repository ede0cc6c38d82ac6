-- All tokens up to a time were revoked; never an earlier time than before.
-- KEYS: since
-- ARGV: the time (Unix s), how long to keep it (s)
-- Returns the time that counts.
local there = tonumber(redis.call('GET', KEYS[1]) or '-1')
local since = math.max(there, tonumber(ARGV[1]))
redis.call('SET', KEYS[1], string.format('%.0f', since), 'EX', ARGV[2])
return since
