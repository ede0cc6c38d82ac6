-- Read on from a position, or from the device's cursor where that is further or none is given.
-- WITH: marks, entry, backlog
-- KEYS: log, cursors, and the marks of a mailbox
-- ARGV: device ('' = nobody's), position held ('' = from the cursor), count, bytes
local device, held = ARGV[1], ARGV[2]
local meta = redis.call('HMGET', KEYS[2], HEAD, STORED, TRIMMED, FIRST, device)
local cursor = device == '' and held or meta[5] or '0-0'
return backlog(KEYS[1], meta, KEYS[3], cursor, held, tonumber(ARGV[3]), tonumber(ARGV[4]), '', nil, device)
