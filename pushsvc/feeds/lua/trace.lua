-- All that a feed keeps of one entry and of those who are owed it.
-- KEYS: log, listeners, cursors, marks, acks
-- ARGV: id, most ids before it and most acks that are looked at
-- Returns {time (ms), {expiry, body} or {}, why it was withdrawn or '', what a receipt will tell of it
-- or '', {listener, value, ...}, {field of the cursors, value, ...}, the time (ms) before which acks
-- are no longer known, {time and number, device, id, ...}, {id before it, newest first, ...}}.
local log, listeners, cursors, marks, acks = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local id, looks = ARGV[1], tonumber(ARGV[2])

local kept, before = {}, {}
local entry = redis.call('XRANGE', log, id, id)[1]
if entry then
  kept = {entry[2][2], entry[2][4]}
  for _, older in ipairs(redis.call('XREVRANGE', log, '(' .. id, '-', 'COUNT', looks)) do
    before[#before + 1] = older[1]
  end
end
local told = redis.call('HMGET', marks, 'w:' .. id, 'r:' .. id)
return {
  now_ms(), kept, told[1] or '', told[2] or '', redis.call('HGETALL', listeners),
  redis.call('HGETALL', cursors), acks_since(acks), acks_from(acks, id, looks), before,
}
