-- Append one message to a feed and say who listens.
-- WITH: marks, state, schedule, publish
-- RUNS: 32
-- KEYS: log, listeners, cursors, latest, marks, and the idempotency key where the caller gave one;
--       in place of the marks, which only mailboxes have, the order of the latest where nodes listen;
--       of what was scheduled became in place of the idempotency key, times, scheduled
-- ARGV: body, ttl (ms; 0 = live only), most entries kept, retention (ms), '1' where whole nodes listen;
--       what follows may be left out where it is all empty: collapse key, '1' where any device settles
--       it, publisher that wants a receipt, once ttl (ms), where a client publishes to a topic: how
--       many bytes may be there for that, 0 for any; of what was scheduled its id; and of a mailbox,
--       where the nodes that listen are sent it here: what the keys of their inboxes begin with, what
--       such an inbox keeps, the beginning of a batch, and its end; the device that it is for, most
--       devices; '1' for a signal, which has no read state; what a push of it shows, after how long (ms)
--       it goes out, and its event
-- Returns 'id previous receipt freed sent listener ...', or '... node count ...', or where it is for one
-- device '... listener device time ...': 1 if a receipt may be due, how many bytes of a topic's state went
-- for a client's, 1 if all nodes that listen were sent it and 2 if the server refused that; the previous
-- id is 0 for a repeated request.
-- Returns false where the topic is full, and where what was scheduled waits no more; 'devices' where the
-- device never came and there are as many as may be.
local log, listeners, cursors, latest, once = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[6]
local body, ttl, keep, retention = ARGV[1], ARGV[2] + 0, ARGV[3] + 0, ARGV[4] + 0
local by_node, key, any, publisher = ARGV[5] == '1', ARGV[6] or '', ARGV[7] == '1', ARGV[8] or ''
local once_ttl, client_bytes = ARGV[9], ARGV[10] and tonumber(ARGV[10])
local scheduled = ARGV[11] ~= '' and ARGV[11]
local marks, order = not by_node and KEYS[5], by_node and KEYS[5]
local device, signal = ARGV[16] ~= '' and ARGV[16], ARGV[18] == '1'

-- What was scheduled goes out in the one step in which it stops to wait: whoever comes later, to send
-- or to recall it, finds that it is out.
if scheduled and not redis.call('ZSCORE', KEYS[7], scheduled) then
  return false
end

if once and not scheduled then
  local seen = redis.call('GET', once)
  if seen then
    -- A write, so that what waits for a durability waits for the first request's append as well.
    redis.call('PEXPIRE', once, once_ttl)
    return told(ARGV, listeners, by_node, device, seen, '0', '0', '0')
  end
end

local now = now_ms()
if client_bytes and client_bytes > 0 and ttl > 0 then
  local added = (ENTRY + #body) * (key ~= '' and 2 or 1)
  if full(log, cursors, latest, order, now, retention, added, client_bytes) then
    return false
  end
end
-- A device that has never come is owed what is for it: its cursor begins as if it came now.
if device and ttl > 0 and redis.call('HEXISTS', cursors, device) == 0 then
  local begins, devices = furthest(cursors)
  if devices < tonumber(ARGV[17]) then
    redis.call('HSET', cursors, device, begins)
    if begins ~= '0-0' then
      redis.call('HSET', cursors, BEGAN .. device, begins)
    end
  elseif scheduled then
    redis.call('HSET', cursors, EVICTED, device) -- too late to refuse it: the device is told when it comes
  else
    return 'devices'
  end
end
local receipts, freed = '0', 0
local head, stored, ordered
if order then
  head, stored, ordered = unpack(redis.call('HMGET', cursors, HEAD, STORED, ORDERED))
else
  head = redis.call('HGET', cursors, HEAD)
end
local previous = head or '0-0'
-- Ids never go back, even where a failover brings a clock that is behind.
local id = text(now) .. '-0'
if not less(previous, id) then
  local head_ms, head_seq = split(previous)
  id = string.format('%.0f-%.0f', head_ms, head_seq + 1)
end

if not head then
  redis.call('HSET', cursors, FIRST, id)
end
if ttl == 0 then
  redis.call('HSET', cursors, HEAD, id)
  if scheduled or once then
    appended(KEYS, once_ttl, scheduled, id)
  end
  keep_alive(cursors, retention * 2)
else
  local expires = text(now + ttl)
  local gone, old, aged -- what leaves a mailbox: its ids, or how many up to an old one
  if key ~= '' then
    -- The newer takes the older's place: who was not sent that one never needs it.
    local older = redis.call('HGET', latest, key)
    if older then
      local older_id = string.match(older, '^%S+')
      local removed = redis.call('XDEL', log, older_id)
      local copies = 1 + removed
      if client_bytes and order then
        freed = (ENTRY + #string.match(older, '^%S+ %S+ (.*)$')) * copies
      end
      if marks then
        gone = removed == 1 and {older_id} or nil
        redis.call('HDEL', marks, 'a:' .. older_id)
        receipts = ended(cursors, marks, older_id, 'replaced') == 1 and '1' or '0'
      else
        redis.call('XDEL', order, older_id)
      end
    end
    local value = order and id .. ' ' .. expires .. ' ' .. body or id
    redis.call('HSET', latest, key, value)
    keep_alive(latest, lifetime(retention))
    if order then
      redis.call('XADD', order, id, key, expires .. ' ' .. #value)
      keep_alive(order, lifetime(retention))
    end
    if not older and redis.call('HLEN', latest) > keep then
      if order then
        if not in_order(latest, order, stored, ordered) then
          put_in_order(latest, order, retention)
          ordered = stored
        end
        while redis.call('HLEN', latest) > keep do
          local oldest = redis.call('XRANGE', order, '-', '+', 'COUNT', 1)[1]
          remove_latest(latest, order, oldest[1], oldest[2][1])
        end
      else
        -- The newest nine tenths stay, so that it is seldom done.
        local values = redis.call('HGETALL', latest)
        local ids = {}
        for i = 1, #values, 2 do
          local ms, sequence = split(values[i + 1])
          ids[#ids + 1] = {ms, sequence, values[i]}
        end
        table.sort(ids, earlier)
        for i = 1, #ids - math.ceil(keep * 0.9) do
          redis.call('HDEL', latest, ids[i][3])
        end
      end
    end
  end
  if any then
    redis.call('HSET', marks, 'a:' .. id, '1')
    keep_alive(marks, retention * 2)
  end
  if publisher ~= '' then
    redis.call('HSET', marks, 'r:' .. id, publisher .. ' ' .. expires)
    if device then
      redis.call('HSET', marks, 'v:' .. id, device)
    end
    keep_alive(marks, retention * 2)
    ask(log, id, publisher, keep, retention)
  end
  if ARGV[19] and ARGV[19] ~= '' then
    foresee_push(log, id, now, ttl, retention, ARGV, key, device, publisher)
  end
  local left = redis.call('PTTL', log)
  -- A log from which the last entry was taken stays there, empty.
  local trimmed = left == -2 and redis.call('HGET', cursors, STORED) or nil -- all of it passed its retention
  if device and signal then
    redis.call('XADD', log, id, 'x', expires, 'd', body, DEVICE, device, SIGNAL, '1')
  elseif device then
    redis.call('XADD', log, id, 'x', expires, 'd', body, DEVICE, device)
  elseif signal then
    redis.call('XADD', log, id, 'x', expires, 'd', body, SIGNAL, '1')
  else
    redis.call('XADD', log, id, 'x', expires, 'd', body)
  end
  if scheduled or once then
    appended(KEYS, once_ttl, scheduled, id)
  end
  if order and ordered == stored then
    redis.call('HSET', cursors, HEAD, id, STORED, id, ORDERED, id)
  elseif publisher ~= '' then
    redis.call('HSET', cursors, HEAD, id, STORED, id, ASKS, id)
  else
    redis.call('HSET', cursors, HEAD, id, STORED, id)
  end
  -- The cursors outlive the log, so that a device that comes back late is told what it missed. A log that
  -- has longer to live than any gets was kept for longer before, and has what is too old by now.
  if left < retention or left > lifetime(retention) or not head then
    redis.call('PEXPIRE', log, lifetime(retention))
    redis.call('PEXPIRE', cursors, retention * 2)
    old, aged = trim_by_age(log, now, retention)
    trimmed = old or trimmed
    for _, which in ipairs(marks and {UNREAD, READ, ARCHIVED} or {}) do
      redis.pcall('PEXPIRE', string.sub(log, 1, -#LOG - 1) .. which, lifetime(retention))
    end
  end
  local over = redis.call('XLEN', log) - keep
  if over > 0 then
    local first = redis.call('XRANGE', log, '-', '+', 'COUNT', over)
    trimmed = first[#first][1]
    redis.call('XTRIM', log, 'MAXLEN', keep)
    gone = gone or {}
    for _, entry in ipairs(first) do
      gone[#gone + 1] = entry[1]
    end
    if marks and redis.call('EXISTS', marks) == 1 then
      for _, entry in ipairs(first) do
        ended(cursors, marks, entry[1], 'trimmed')
        redis.call('HDEL', marks, 'a:' .. entry[1])
      end
    end
  end
  if marks and (gone or old) then
    gone = gone or {}
    -- They leave the read state, as far as that is up to date. The same as `lib_read_state.lua` has, whose
    -- functions would cost each publish. It is published by now, so nothing may fail: a set may be elsewhere
    -- while its slot moves. Where one fails, SEEN stays as it was, and who counts next looks at all again.
    local upto, count, rest = string.match(redis.call('HGET', cursors, SEEN) or '', '^(%S+) (%d+)(.*)$')
    if upto then
      if old and less(upto, old) then
        count = 0
      else
        count = count - (aged or 0)
        for _, id in ipairs(gone) do
          count = count - (less(upto, id) and 0 or 1)
        end
      end
      local failed = false
      for _, which in ipairs({UNREAD, READ, ARCHIVED}) do
        local set = string.sub(log, 1, -#LOG - 1) .. which
        for first = 1, #gone, 1000 do
          local removed = redis.pcall('ZREM', set, unpack(gone, first, math.min(first + 999, #gone)))
          failed = failed or type(removed) == 'table'
        end
        local there = old and redis.pcall('ZRANGE', set, 0, -1) or {}
        failed = failed or there.err
        for _, id in ipairs(there) do
          if not less(old, id) then
            redis.pcall('ZREM', set, id)
          end
        end
      end
      if not failed then
        redis.call('HSET', cursors, SEEN, upto .. ' ' .. count .. rest)
      end
    end
  end
  if trimmed then
    redis.call('HSET', cursors, TRIMMED, trimmed)
    if marks and redis.call('EXISTS', marks) == 1 then
      receipts = '1'
      if over <= 0 then
        -- By age, which happens to many at once, and seldom.
        for _, each in ipairs(marked(redis.call('HKEYS', marks), 'a', nil, trimmed)) do
          redis.call('HDEL', marks, 'a:' .. each[3])
        end
      end
    end
  end
end
return told(ARGV, listeners, by_node, device, id, previous, receipts, freed > 0 and string.format('%.0f', freed) or '0')
