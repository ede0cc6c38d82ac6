-- Parts of a publish, which are defined once for all runs of a call.

-- Whole numbers as text: the times of a call are the same in all of its runs.
local texts = {}

local function text(number)
  local known = texts[number]
  if not known then
    known = string.format('%.0f', number)
    texts[number] = known
  end
  return known
end

-- Put an entry into the inboxes of the nodes that listen, as a batch of one; 1 if it is in all of them, else 2.
-- Their keys are no KEYS, as nobody knows before who listens. A server that refuses that is no harm: the
-- publisher sends what was not sent here.
local function send(args, id, previous, listening, step)
  local body = args[1]
  local ms, seq = split(id)
  local previous_ms, previous_seq = split(previous)
  -- In MessagePack: four integers of 64 bits, and bytes with a length of 32.
  local batch = args[14] .. struct.pack('>BI8BI8BI8BI8BI4',
    0xcf, ms, 0xcf, seq, 0xcf, previous_ms, 0xcf, previous_seq, 0xc6, #body) .. body .. args[15]
  local sent, whole = {}, '1'
  for i = 1, #listening, step do
    local node = string.match(listening[i], '^[^.]+')
    if not sent[node] then
      sent[node] = true
      local added = redis.pcall('XADD', args[12] .. node .. INBOX, 'NOMKSTREAM', 'MAXLEN', '~', args[13],
        '*', PACKET, batch)
      if type(added) == 'table' then
        whole = '2'
      end
    end
  end
  return whole
end

-- One string costs less than a table of them.
local function told(args, listeners, by_node, device, id, previous, receipts, freed)
  local listening = redis.call((by_node or device) and 'HGETALL' or 'HKEYS', listeners)
  local sent = args[12] and args[12] ~= '' and previous ~= '0'
    and send(args, id, previous, listening, device and 2 or 1) or '0'
  local answer = id .. ' ' .. previous .. ' ' .. receipts .. ' ' .. freed .. ' ' .. sent
  return #listening > 0 and answer .. ' ' .. table.concat(listening, ' ') or answer
end

-- What an entry takes beside its body, about.
local ENTRY = 256

-- Take out of the log what passed its retention; the newest id of that, if there was any, and how many.
local function trim_by_age(log, now, retention)
  local old = redis.call('XREVRANGE', log, string.format('%.0f', now - retention), '-', 'COUNT', 1)
  if #old > 0 then
    return old[1][1], redis.call('XTRIM', log, 'MINID', string.format('%.0f', now - retention + 1))
  end
end

-- Whether a topic is too full for a client's so many bytes. What is there is counted only when clients have added enough
-- to what was counted last; from seven eighths on it is full, and for 30 seconds not counted again: so
-- that a publish costs in proportion to itself, however near to full the topic is. What is counted and
-- has passed its time goes, so that a topic frees itself though nobody may publish to it.
local function full(log, cursors, latest, order, now, retention, added, most)
  local size, closed = string.match(redis.call('HGET', cursors, BYTES) or '0 0', '^(%d+) (%d+)$')
  if now < tonumber(closed) then
    return true
  end
  if size + added > most then
    size = 0
    local old = trim_by_age(log, now, retention)
    if old then
      redis.call('HSET', cursors, TRIMMED, old)
    end
    local function add(stream, expiry_and_length)
      local after = '-'
      repeat
        local entries = redis.call('XRANGE', stream, after, '+', 'COUNT', 32)
        for _, entry in ipairs(entries) do
          local expires, length = expiry_and_length(entry[2])
          if tonumber(expires) > now then
            size = size + ENTRY + length
          elseif stream == log then
            redis.call('XDEL', log, entry[1])
          else
            remove_latest(latest, order, entry[1], entry[2][1])
          end
          after = '(' .. entry[1]
        end
      until #entries < 32 or size > most
    end
    add(log, function(fields) return fields[2], #fields[4] end)
    add(order, function(fields) return string.match(fields[2], '^(%d+) (%d+)$') end)
    if size + added > most * 7 / 8 then
      redis.call('HSET', cursors, BYTES, string.format('%.0f %.0f', size, now + 30000))
      redis.call('PEXPIRE', cursors, retention * 2)
      return true
    end
  end
  redis.call('HSET', cursors, BYTES, string.format('%.0f 0', size + added))
  return false
end

-- It is appended. What was scheduled waits until then and no longer: an error before leaves it where it
-- is, and one after does not send it again.
local function appended(keys, once_ttl, scheduled, id)
  if scheduled then
    unschedule(keys[7], keys[8], scheduled)
  end
  if keys[6] then
    redis.call('SET', keys[6], id, 'PX', once_ttl)
  end
end

-- Whoever published an entry wants to know when it is read. What is not read is forgotten with the log, in
-- great steps: the newest as many as that keeps stay.
local function ask(log, id, publisher, keep, retention)
  local asked = string.sub(log, 1, -#LOG - 1) .. ASKED
  redis.call('HSET', asked, id, publisher)
  keep_alive(asked, retention * 2)
  if redis.call('HLEN', asked) > 2 * keep + 16 then
    local ids = {}
    for _, each in ipairs(redis.call('HKEYS', asked)) do
      local ms, sequence = split(each)
      ids[#ids + 1] = {ms, sequence, each}
    end
    table.sort(ids, earlier)
    for i = 1, #ids - keep do
      redis.call('HDEL', asked, ids[i][3])
    end
  end
end

-- An entry has a push, where any device of the mailbox is registered for that. The keys are no KEYS: they are
-- that of the log with another end, in its slot.
local function foresee_push(log, id, now, ttl, retention, args, key, device, publisher)
  local mailbox = string.sub(log, 1, -#LOG - 1)
  if redis.call('EXISTS', mailbox .. DEVICES) == 0 then
    return
  end
  local record, pushes = mailbox .. PUSH .. id, mailbox .. PUSHES
  if device and key ~= '' then
    key = string.match(key, '^%S+ (.*)$') -- behind the device
  end
  redis.call('HSET', record, TEXT, args[19], PUBLISHER, publisher, EVENT, args[21], KEY, key)
  redis.call('PEXPIRE', record, text(ttl))
  redis.call('ZADD', pushes, text(now + args[20]), id)
  keep_alive(pushes, retention * 2)
end
