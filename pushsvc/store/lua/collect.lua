-- Find out which of the receipts that a mailbox owes can be given, and of what.
-- WITH: marks
-- KEYS: log, cursors, marks, acks, told
-- ARGV: most receipts
-- Returns {time, earliest expiry and time of the newest of those that stay open (0 = there are none),
-- 1 if there are more to give, {id, publisher, status, time, device or ''}, ...}; times in ms.
-- The marks stay until the receipts are appended elsewhere: giving them twice is noticed there.
local log, cursors, marks, acks, told = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local most = tonumber(ARGV[1])
local now = now_ms()

-- What was read, of whose publishers each wants to know.
local answer = {now, 0, 0, 0}
local reads = redis.call('HGETALL', told)
for i = 1, #reads, 2 do
  if #answer == 4 + most then
    answer[4] = 1
    return answer
  end
  local publisher, at = string.match(reads[i + 1], '^(%S+) (%d+)$')
  answer[#answer + 1] = {reads[i], publisher, 'read', tonumber(at), ''}
end

-- What any device settles, and what one alone does, each in order: `next` is the first that no ack is
-- known of yet, `upto` how far there is one.
local queues = {}
local function queue_of(device)
  if not queues[device] then
    local upto, began
    if device == '' then
      upto, began = furthest(cursors), '0-0'
    else
      upto, began = position(cursors, device)
    end
    queues[device] = {next = 1, upto = {split(upto)}, began = {split(began)}}
  end
  return queues[device]
end

local owed = {}
local fields = redis.call('HKEYS', marks)
local for_one = among(fields, 'v')
for _, each in ipairs(marked(fields, 'r')) do
  local mark = redis.call('HGET', marks, 'r:' .. each[3])
  local publisher, expires, how, at = string.match(mark, '^(%S+) (%d+) ?(%a*) ?(%d*)$')
  each.id, each.publisher, each.expires = each[3], publisher, tonumber(expires)
  each.how, each.at = how, tonumber(at)
  each.queue = queue_of(for_one[each.id] and redis.call('HGET', marks, 'v:' .. each.id) or '')
  -- A device that began behind what is for it, because its cursor was lost, never had it.
  if earlier(each.queue.began, each) then
    each.queue[#each.queue + 1] = each
    each.settled = not earlier(each.queue.upto, each)
  end
  owed[#owed + 1] = each
end
if #owed == 0 then
  return answer
end

-- Acks are cumulative and in the order in which they were made, so each settles a further part of
-- what is owed; and none was made before what it acknowledges.
local function settle(queue, device, upto, time)
  local one = queue[queue.next]
  while one and not earlier(upto, one) do
    one.acked, one.device = time, device
    queue.next = queue.next + 1
    one = queue[queue.next]
  end
end

local function is_sought()
  for _, queue in pairs(queues) do
    local one = queue[queue.next]
    if one and one.settled then
      return true
    end
  end
  return false
end

local function find_first_acks()
  local from = string.format('%.0f', owed[1][1])
  while is_sought() do
    local entries = redis.call('XRANGE', acks, from, '+', 'COUNT', 100)
    if #entries == 0 then
      return
    end
    for _, entry in ipairs(entries) do
      local device, upto, time = entry[2][2], {split(entry[2][4])}, (split(entry[1]))
      settle(queues[''] or {next = 1}, device, upto, time)
      settle(queues[device] or {next = 1}, device, upto, time)
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
  elseif not one.at and one.settled then
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
