-- Append one message to a feed and say who listens.
-- KEYS: log, listeners, cursors, latest, marks, and the idempotency key where the caller gave one
-- ARGV: body, ttl (ms; 0 = live only), most entries kept, retention (ms), once ttl (ms),
--       '1' where whole nodes listen, collapse key, '1' where any device settles it,
--       publisher that wants a receipt
-- Returns {id, previous id, {listener, ...} or {node, count, ...}, 1 if a receipt may be due}; the
-- previous id is '' for a repeated request.
local log, listeners, cursors, latest, marks = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local once = KEYS[6]
local body, ttl, keep, retention = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local by_node, key, any, publisher = ARGV[6] == '1', ARGV[7], ARGV[8] == '1', ARGV[9]

local function listening()
  return redis.call(by_node and 'HGETALL' or 'HKEYS', listeners)
end

-- Keep the newest `most` fields of a hash whose values begin with an id.
local function bound_latest(most)
  local fields = redis.call('HGETALL', latest)
  local ids = {}
  for i = 1, #fields, 2 do
    ids[#ids + 1] = {fields[i], string.match(fields[i + 1], '^%S+')}
  end
  table.sort(ids, function(a, b) return less(a[2], b[2]) end)
  for i = 1, #ids - most do
    redis.call('HDEL', latest, ids[i][1])
  end
end

if once then
  local seen = redis.call('GET', once)
  if seen then
    -- A write, so that what waits for a durability waits for the first request's append as well.
    redis.call('PEXPIRE', once, ARGV[5])
    return {seen, '', listening(), 0}
  end
end

local now = now_ms()
local receipts = 0
local fields = redis.call('HMGET', cursors, HEAD, STORED)
local previous, stored = fields[1] or '0-0', fields[2]
local head_ms, head_seq = split(previous)
-- Ids never go back, even where a failover brings a clock that is behind.
local id = string.format('%.0f-0', now)
if now <= head_ms then
  id = string.format('%.0f-%.0f', head_ms, head_seq + 1)
end

if not fields[1] then
  redis.call('HSET', cursors, FIRST, id)
end
if ttl == 0 then
  redis.call('HSET', cursors, HEAD, id)
else
  local expires = string.format('%.0f', now + ttl)
  if key ~= '' then
    -- The newer takes the older's place: who was not sent that one never needs it.
    local older = redis.call('HGET', latest, key)
    if older then
      local older_id = string.match(older, '^%S+')
      redis.call('XDEL', log, older_id)
      redis.call('HDEL', marks, 'a:' .. older_id)
      receipts = ended(cursors, marks, older_id, 'replaced')
    end
    redis.call('HSET', latest, key, by_node and id .. ' ' .. expires .. ' ' .. body or id)
    redis.call('PEXPIRE', latest, retention)
    if not older and redis.call('HLEN', latest) > keep then
      bound_latest(math.ceil(keep * 0.9))
    end
  end
  if any then
    redis.call('HSET', marks, 'a:' .. id, '1')
    redis.call('PEXPIRE', marks, retention * 2)
  end
  if publisher ~= '' then
    redis.call('HSET', marks, 'r:' .. id, publisher .. ' ' .. expires)
    redis.call('PEXPIRE', marks, retention * 2)
  end
  -- A log from which the last entry was taken stays there, empty.
  local trimmed = redis.call('EXISTS', log) == 0 and stored or nil -- all of it passed its retention
  redis.call('XADD', log, id, 'x', expires, 'd', body)
  redis.call('HSET', cursors, HEAD, id, STORED, id)
  redis.call('PEXPIRE', log, retention)
  local old = redis.call('XREVRANGE', log, string.format('%.0f', now - retention), '-', 'COUNT', 1)
  if #old > 0 then
    trimmed = old[1][1]
    redis.call('XTRIM', log, 'MINID', string.format('%.0f', now - retention + 1))
  end
  local over = redis.call('XLEN', log) - keep
  if over > 0 then
    local first = redis.call('XRANGE', log, '-', '+', 'COUNT', over)
    trimmed = first[#first][1]
    redis.call('XTRIM', log, 'MAXLEN', keep)
    if redis.call('EXISTS', marks) == 1 then
      for _, entry in ipairs(first) do
        ended(cursors, marks, entry[1], 'trimmed')
        redis.call('HDEL', marks, 'a:' .. entry[1])
      end
    end
  end
  if trimmed then
    redis.call('HSET', cursors, TRIMMED, trimmed)
    if redis.call('EXISTS', marks) == 1 then
      receipts = 1
      if over <= 0 then
        -- By age, which happens to many at once, and seldom.
        local any_device = marked(marks, 'a')
        for i = 1, #any_device, 2 do
          if not less(trimmed, any_device[i]) then
            redis.call('HDEL', marks, 'a:' .. any_device[i])
          end
        end
      end
    end
  end
end
-- The cursors outlive the log, so that a device that comes back late is told what it missed.
redis.call('PEXPIRE', cursors, retention * 2)
if once then
  redis.call('SET', once, id, 'PX', ARGV[5])
end
return {id, previous, listening(), receipts}
