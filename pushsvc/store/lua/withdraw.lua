-- Recall an entry of a mailbox: who has not acknowledged it never sees it, or is told.
-- WITH: marks, entry, read_state, withdrawals
-- KEYS: log, listeners, cursors, marks
-- ARGV: id, retention (ms)
-- Returns false where it is not kept, else {{listener, device and time, ...},
-- {device that has acknowledged it, ...}, 1 if a receipt may be due, the device that it is for or ''}.
local log, listeners, cursors, marks = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id = ARGV[1]
-- A second recall is answered like the first, whose answer may have been lost.
local entry = redis.call('XRANGE', log, id, id)[1]
local whose = entry and device_of(entry[2])
  or string.match(redis.call('HGET', marks, 'w:' .. id) or '', '^recalled ?(.*)$')
if not whose then
  return false
end
withdraw(log, cursors, marks, {id}, whose == '' and 'recalled' or 'recalled ' .. whose)
bound_withdrawn(marks)
local receipts = ended(cursors, marks, id, 'recalled')
redis.call('PEXPIRE', marks, tonumber(ARGV[2]) * 2)
local acked = {}
local fields = redis.call('HGETALL', cursors)
local began = {}
for i = 1, #fields, 2 do
  if string.sub(fields[i], 1, 3) == BEGAN then
    began[string.sub(fields[i], 4)] = fields[i + 1]
  end
end
for i = 1, #fields, 2 do
  local name = fields[i]
  if string.sub(name, 1, 1) ~= '~' and (whose == '' or whose == name)
      and not less(fields[i + 1], id) and less(began[name] or '0-0', id) then
    acked[#acked + 1] = name
  end
end
return {redis.call('HGETALL', listeners), acked, receipts, whose}
