-- Append one message to a feed and say who listens.
-- KEYS: log, listeners, cursors, and the idempotency key where the caller gave one
-- ARGV: body, ttl (ms; 0 = live only), most entries kept, retention (ms), once ttl (ms)
-- Returns {id, previous id, {listener, ...}}; the previous id is '' for a repeated request.
local log, listeners, cursors, once = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local body, ttl, keep, retention = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

if once then
  local seen = redis.call('GET', once)
  if seen then
    -- A write, so that what waits for a durability waits for the first request's append as well.
    redis.call('PEXPIRE', once, ARGV[5])
    return {seen, '', redis.call('HKEYS', listeners)}
  end
end

local now = now_ms()
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
  redis.call('XADD', log, id, 'x', string.format('%.0f', now + ttl), 'd', body)
  redis.call('HSET', cursors, HEAD, id, STORED, id)
  redis.call('PEXPIRE', log, retention)
  local trimmed
  local old = redis.call('XREVRANGE', log, string.format('%.0f', now - retention), '-', 'COUNT', 1)
  if #old > 0 then
    trimmed = old[1][1]
    redis.call('XTRIM', log, 'MINID', string.format('%.0f', now - retention + 1))
  end
  local length = redis.call('XLEN', log)
  if length == 1 and stored then
    trimmed = stored -- the whole log had passed its retention
  end
  local over = length - keep
  if over > 0 then
    local first = redis.call('XRANGE', log, '-', '+', 'COUNT', over)
    trimmed = first[#first][1]
    redis.call('XTRIM', log, 'MAXLEN', keep)
  end
  if trimmed then
    redis.call('HSET', cursors, TRIMMED, trimmed)
  end
end
-- The cursors outlive the log, so that a device that comes back late is told what it missed.
redis.call('PEXPIRE', cursors, retention * 2)
if once then
  redis.call('SET', once, id, 'PX', ARGV[5])
end
return {id, previous, redis.call('HKEYS', listeners)}
