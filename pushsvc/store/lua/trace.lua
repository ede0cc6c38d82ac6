-- All that a feed keeps of one entry and of those who are owed it.
-- WITH: acks, entry
-- KEYS: log, listeners, cursors, marks, acks
-- ARGV: id, most ids before it and most acks that are looked at, most bytes of those before it
-- Returns {time (ms), {expiry, body} or {}, why it was withdrawn or '', what a receipt will tell of it
-- or '', the device that it is for or '', {listener, value, ...}, {field of the cursors, value, ...}, the time (ms) before which acks
-- are no longer known, {time and number, device, id, ...}, {id before it, newest first, the device
-- that it is for or '', ...}}.
local log, listeners, cursors, marks, acks = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local id, looks, bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local CHUNK = 32

local kept, before, whose = {}, {}, ''
local entry = redis.call('XRANGE', log, id, id)[1]
if entry then
  kept, whose = {entry[2][2], entry[2][4]}, device_of(entry[2])
  local size, last = 0, id
  repeat
    local older = redis.call('XREVRANGE', log, '(' .. last, '-', 'COUNT', CHUNK)
    for _, each in ipairs(older) do
      last, size = each[1], size + #each[2][4]
      before[#before + 1] = last
      before[#before + 1] = device_of(each[2])
    end
  until #older < CHUNK or #before >= 2 * looks or size >= bytes
end
local told = redis.call('HMGET', marks, 'w:' .. id, 'r:' .. id, 'v:' .. id)
local why, of = string.match(told[1] or '', '^(%S*) ?(.*)$')
if not entry then
  whose = of ~= '' and of or told[3] or ''
end
return {
  now_ms(), kept, why, told[2] or '', whose, redis.call('HGETALL', listeners),
  redis.call('HGETALL', cursors), acks_since(acks), acks_from(acks, id, looks), before,
}
