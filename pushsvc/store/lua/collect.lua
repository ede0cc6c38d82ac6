-- Find out which of the receipts that a mailbox owes can be given, and of what.
-- WITH: marks
-- KEYS: log, cursors, marks, acks
-- ARGV: most receipts
-- Returns {time, earliest expiry and time of the newest of those that stay open (0 = there are none),
-- 1 if there are more to give, {id, publisher, status, time, device or ''}, ...}; times in ms.
-- The marks stay until the receipts are appended elsewhere: giving them twice is noticed there.
local log, cursors, marks, acks = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local most = tonumber(ARGV[1])
local now = now_ms()

local owed = {}
for _, each in ipairs(marked(redis.call('HKEYS', marks), 'r')) do
  local mark = redis.call('HGET', marks, 'r:' .. each[3])
  local publisher, expires, how, at = string.match(mark, '^(%S+) (%d+) ?(%a*) ?(%d*)$')
  each.id, each.publisher, each.expires = each[3], publisher, tonumber(expires)
  each.how, each.at = how, tonumber(at)
  owed[#owed + 1] = each
end
if #owed == 0 then
  return {now, 0, 0, 0}
end

-- Acks are cumulative and in the order in which they were made, so each settles a further part of
-- what is owed; and none was made before what it acknowledges.
local newest_ack = {split(furthest(cursors))}
local function find_first_acks()
  local i = 1
  local from = string.format('%.0f', owed[1][1])
  while i <= #owed and not earlier(newest_ack, owed[i]) do
    local entries = redis.call('XRANGE', acks, from, '+', 'COUNT', 100)
    if #entries == 0 then
      return
    end
    for _, entry in ipairs(entries) do
      local device, upto = entry[2][2], {split(entry[2][4])}
      while i <= #owed and not earlier(upto, owed[i]) do
        owed[i].acked, owed[i].device = (split(entry[1])), device
        i = i + 1
      end
    end
    from = '(' .. entries[#entries][1]
  end
end
find_first_acks()

local gone = redis.call('EXISTS', log) == 0

-- The status and its time, nil while it is open. A time to live ends the wait for an ack, however
-- late this is run.
local function status(one)
  if one.at and one.at <= one.expires then
    return one.how, one.at
  elseif not one.at and not earlier(newest_ack, one) then
    if not one.acked then
      return 'acked', math.min(now, one.expires) -- by an ack so old that it is not kept
    elseif one.acked <= one.expires then
      return 'acked', one.acked
    end
  end
  if one.expires <= now then
    return 'expired', one.expires
  elseif gone then
    return 'trimmed', now -- with all of the mailbox
  end
end

local answer = {now, 0, 0, 0}
for _, one in ipairs(owed) do
  if #answer == 4 + most then
    answer[4] = 1
    break
  end
  local what, at = status(one)
  if what then
    local device = what == 'acked' and one.device or ''
    answer[#answer + 1] = {one.id, one.publisher, what, at, device}
  else
    if answer[2] == 0 or one.expires < answer[2] then
      answer[2] = one.expires
    end
    answer[3] = one[1]
  end
end
return answer
