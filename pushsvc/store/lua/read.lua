-- Read on from a position, or from the device's cursor where that is further or none is given.
-- WITH: marks, entry, read_state, unread, backlog
-- KEYS: log, cursors, and the marks of a mailbox
-- ARGV: device ('' = nobody's), position held ('' = from the cursor), count, bytes
-- Returns a backlog; where Redis has lost a part of a mailbox with ' ' and how many are unread.
local device, held = ARGV[1], ARGV[2]
local log, cursors, marks = KEYS[1], KEYS[2], KEYS[3]
local meta = redis.call('HMGET', cursors, HEAD, STORED, TRIMMED, FIRST, device, SEEN)
local cursor = device == '' and held or meta[5] or '0-0'
local count, bytes = tonumber(ARGV[3]), tonumber(ARGV[4])
local answer = backlog(log, meta, marks, cursor, held, count, bytes, '', nil, device)
if marks and answer[5] == 'reset' then
  answer[6] = ' ' .. count_unread(log, cursors, meta[2], meta[6], now_ms())
end
return answer
