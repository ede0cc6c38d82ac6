-- Take bytes out of a budget, which fills up again evenly.
-- KEYS: budget
-- ARGV: bytes (below 0: give them back), most bytes, in how long none become most (ms),
--       '1' to take them whether they are there or not
-- Returns 0; or in how many ms there are as many, where none were taken.
local budget, bytes, most, window = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local now = now_ms()
-- When it is full again (ms).
local full = math.max(now, tonumber(redis.call('GET', budget) or '0'))
full = full + math.min(bytes, most) / most * window
if full > now + window and ARGV[4] ~= '1' then
  return math.ceil(full - now - window)
end
if full <= now then
  redis.call('DEL', budget)
else
  redis.call('SET', budget, string.format('%.3f', full), 'PX', math.ceil(full - now))
end
return 0
