-- What an operator wants to know of a mailbox.
-- WITH: entry
-- KEYS: log, cursors, listeners
-- ARGV: most entries, and most bytes of bodies, that are looked at
-- Returns {entries in the log, oldest id, newest id, {field of the cursors, value, ...},
-- {connection, device and time of joining, ...}, from, {id, the device that it is for or '', ...}}: the
-- ids of those whose time to live has not passed, newest first, among all from `from` on; '' if that is
-- all there are.
local log, cursors, listeners = KEYS[1], KEYS[2], KEYS[3]
local looks, bytes = tonumber(ARGV[1]), tonumber(ARGV[2])
local CHUNK = 32

local now, size, looked, from, found, whole = now_ms(), 0, 0, '+', {}, false
while looked < looks and size < bytes do
  local count = math.min(CHUNK, looks - looked)
  local chunk = redis.call('XREVRANGE', log, from, '-', 'COUNT', count)
  for _, entry in ipairs(chunk) do
    if tonumber(entry[2][2]) > now then
      found[#found + 1] = entry[1]
      found[#found + 1] = device_of(entry[2])
    end
    size = size + #entry[2][4]
    from = '(' .. entry[1]
  end
  looked = looked + #chunk
  if #chunk < count then
    whole = true
    break
  end
end

local length, oldest, newest = redis.call('XLEN', log), '', ''
if length > 0 then
  oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1][1]
  newest = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1][1]
end
whole = whole or looked >= length
return {
  length, oldest, newest, redis.call('HGETALL', cursors), redis.call('HGETALL', listeners),
  whole and '' or string.sub(from, 2), found,
}
