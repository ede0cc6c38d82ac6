-- Move a device's cursor forward; never back, and never past what was published. That the cursors live
-- on is the matter of what is published, of joining and of the sweep.
-- WITH: marks, entry, read_state, withdrawals
-- RUNS: 64
-- KEYS: cursors, listeners, log, marks, acks
-- ARGV: device, id, retention (ms), most acks kept, what the id is:
--       '' one that the device was sent, 'stored' one that must be in the log, 'broadcast' one of
--       the broadcast, whose log is elsewhere
--       '1' where a connection of the user acknowledges, which need not be told
-- Returns the device's cursor; or, where others are concerned,
-- {cursor, {listener, device and time, ...}, {id that is settled for all devices, ...},
--  1 if a receipt may be due}.
local cursors, listeners, log, marks, acks = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local device, id, retention, kind = ARGV[1], ARGV[2], ARGV[3] + 0, ARGV[5]
local told = ARGV[6] + 0

if kind == 'broadcast' then
  local cursor = redis.call('HGET', cursors, BROADCAST .. device)
  if not cursor or not less(cursor, id) then
    return cursor or '0-0'
  end
  redis.call('HSET', cursors, BROADCAST .. device, id)
  return redis.call('HLEN', listeners) > told and {id, redis.call('HGETALL', listeners), {}, 0} or id
end

local fields = redis.call('HMGET', cursors, device, HEAD)
local cursor, head = fields[1] or '0-0', fields[2] or '0-0'
if not less(cursor, id) or less(head, id) then
  return cursor
end
if kind == 'stored' then
  local entry = fields[1] and redis.call('XRANGE', log, id, id)[1]
  local whose = entry and device_of(entry[2])
  if not entry or (whose ~= '' and whose ~= device) then
    return cursor
  end
end
redis.call('HSET', cursors, device, id)
-- Who acknowledged what, and when: the time is the id of the entry.
redis.call('XADD', acks, 'MAXLEN', '~', ARGV[4], '*', 'd', device, 'i', id)
keep_alive(acks, lifetime(retention))

local others = {}
if redis.call('HLEN', listeners) > told then
  others = redis.call('HGETALL', listeners)
end
local settled, receipts = {}, 0
local marks_there = redis.call('HKEYS', marks)
if #marks_there > 0 then
  for _, each in ipairs(marked(marks_there, 'a', nil, id)) do
    local any = each[3]
    if less(cursor, any) and #redis.call('XRANGE', log, any, any) == 1 then
      settled[#settled + 1] = any
    else
      redis.call('HDEL', marks, 'a:' .. any)
    end
  end
  if #settled > 0 then
    withdraw(log, cursors, marks, settled, 'acked')
    bound_withdrawn(marks)
    redis.call('PEXPIRE', marks, retention * 2)
    others = redis.call('HGETALL', listeners)
  end
  local owed = marked(marks_there, 'r', nil, id)
  local for_one = #owed > 0 and among(marks_there, 'v') or {}
  for _, each in ipairs(owed) do
    if not for_one[each[3]] or redis.call('HGET', marks, 'v:' .. each[3]) == device then
      receipts = 1
      break
    end
  end
end
if #others == 0 and receipts == 0 then
  return id
end
return {id, others, settled, receipts}
