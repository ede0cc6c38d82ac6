-- Register a connection and read what it has not acked, in one step: whatever is published is
-- either in the answer or routed to the connection.
-- WITH: marks, entry, read_state, unread, backlog
-- RUNS: 8
-- KEYS: log, listeners, cursors, marks
-- ARGV: connection id, device, position held ('' at first), count, bytes, retention (ms),
--       most connections, most devices, the broadcast's head, '1' where its node's lease lapsed,
--       '1' to tell what was withdrawn before the position held
-- Returns the backlog, with the device's position in the broadcast and how many are unread, -1 where that takes
-- another call; or {'', listener, ...} where the user holds as many connections as it may.
local log, listeners, cursors, marks = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local connection, device, held = ARGV[1], ARGV[2], ARGV[3]
local keep_ms = tonumber(ARGV[6]) * 2

local others = redis.call('HLEN', listeners)
-- One that comes back after its node's lease lapsed was let in before.
if ARGV[10] == '' and others >= tonumber(ARGV[7])
    and redis.call('HEXISTS', listeners, connection) == 0 then
  local answer = redis.call('HKEYS', listeners)
  table.insert(answer, 1, '')
  return answer
end

local meta =
  redis.call('HMGET', cursors, HEAD, STORED, TRIMMED, FIRST, device, BROADCAST .. device, EVICTED,
    BEGAN .. device, SEEN)
local cursor, broadcast, evicted = meta[5], meta[6], meta[7]
local new, written = not cursor, {} -- what is written into the cursors, in one command
local function write(field, value)
  written[#written + 1] = field
  written[#written + 1] = value
end
if cursor and held ~= '' and cursor == meta[8] and less(held, cursor) then
  -- It was lost, and made anew by what was published to the device: that is owed what it was owed.
  cursor = '0-0'
  write(device, cursor)
  redis.call('HDEL', cursors, BEGAN .. device)
end
if new then
  -- A new device starts after what any device of the user has acked. The place is kept, so that
  -- another device's later acks do not move it. One that holds a position is not new: its cursor
  -- was lost, and it is owed whatever follows that position.
  cursor = '0-0'
  local devices, lowest, lowest_device = 0, nil, nil
  local fields = redis.call('HGETALL', cursors)
  for i = 1, #fields, 2 do
    local name, id = fields[i], fields[i + 1]
    if string.sub(name, 1, 1) ~= '~' then
      devices = devices + 1
      if held == '' and less(cursor, id) then
        cursor = id
      end
      if not lowest or less(id, lowest) then
        lowest, lowest_device = id, name
      end
    end
  end
  if devices >= tonumber(ARGV[8]) then
    redis.call(
      'HDEL', cursors, lowest_device, BROADCAST .. lowest_device, BEGAN .. lowest_device
    )
    write(EVICTED, lowest_device)
    evicted = lowest_device
  end
  write(device, cursor)
  if cursor ~= '0-0' then
    write(BEGAN .. device, cursor)
  end
end
if not broadcast then
  -- Who was never here before was not owed what was broadcast before.
  broadcast = ARGV[9]
  write(BROADCAST .. device, broadcast)
end
local stored, seen = meta[2], meta[9]
if not (stored or seen) then
  -- Nothing was ever kept: from here on, what is acknowledged is not read by that.
  seen = '0-0 0 0-0'
  write(SEEN, seen)
end
if #written > 0 then
  redis.call('HSET', cursors, unpack(written))
end
local now = now_ms()
redis.call('HSET', listeners, connection, device .. ' ' .. string.format('%.0f', now))
if others == 0 then
  redis.call('PEXPIRE', listeners, keep_ms)
else
  keep_alive(listeners, keep_ms)
end
keep_alive(cursors, keep_ms)
local unread = count_unread(log, cursors, stored, seen, now, CATCH_UP_SHARE)
local answer = backlog(
  log, meta, marks, cursor, held, tonumber(ARGV[4]), tonumber(ARGV[5]), broadcast .. ' ' .. unread,
  ARGV[11] == '1' and cursor or nil, device
)
if new and held == '' and answer[5] == '' and evicted then
  -- It may be one that made room for others, and was owed what they have acknowledged.
  answer[5] = 'trimmed'
end
return answer
