-- Remove what a name stands for, if it is still that.
-- KEYS: a hash, or a string
-- ARGV: the value; of a hash the field
-- Returns 1 where it was removed.
local there
if ARGV[2] then
  there = redis.call('HGET', KEYS[1], ARGV[2])
else
  there = redis.call('GET', KEYS[1])
end
if there ~= ARGV[1] then
  return 0
end
return ARGV[2] and redis.call('HDEL', KEYS[1], ARGV[2]) or redis.call('DEL', KEYS[1])
