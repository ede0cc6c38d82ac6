-- What of a mailbox's pushes is due; what is not worth a push any more is forgotten.
-- WITH: marks, entry, read_state, pushes
-- KEYS: log, cursors, devices, pushes
-- ARGV: most notifications
-- Returns {in how long to look again (ms, '' where nothing else is pending), push, ...}, a push as
-- {id, when the entry expires (ms), since when it is due (ms), text, publisher, event, collapse key,
-- {device whose receipt is owed, its outcome, ...}, device, its registration, its outcome or '', ...}.
local log, cursors, devices, pushes, most = KEYS[1], KEYS[2], KEYS[3], KEYS[4], tonumber(ARGV[1])
local now = now_ms()
local mailbox = string.sub(log, 1, -#LOG - 1)
local registered = redis.call('HGETALL', devices)
local value = {}
for i = 1, #registered, 2 do
  value[registered[i]] = registered[i + 1]
end
local answer, given = {''}, {}
local ids = redis.call('ZRANGEBYSCORE', pushes, '-inf', now, 'WITHSCORES', 'LIMIT', 0, most)
for i = 1, #ids, 2 do
  local id = ids[i]
  local found = look_at_push(log, cursors, mailbox, registered, id, now)
  if put_off(pushes, id, found, now) then
    local record, owed = found[4], {}
    for _, device in ipairs(found[3]) do
      owed[#owed + 1] = device
      owed[#owed + 1] = record[device] or ''
    end
    local push = {id, found[5], tonumber(ids[i + 1]), record[TEXT] or '', record[PUBLISHER] or '',
      record[EVENT] or '', record[KEY] or '', owed}
    for _, device in ipairs(found[1]) do
      push[#push + 1] = device
      push[#push + 1] = value[device]
      push[#push + 1] = record[device] or ''
    end
    answer[#answer + 1] = push
    given[id] = true
  end
end
-- The first of the others.
local first = redis.call('ZRANGE', pushes, 0, #answer - 1, 'WITHSCORES')
for i = 1, #first, 2 do
  if not given[first[i]] then
    answer[1] = math.max(0, tonumber(first[i + 1]) - now)
    break
  end
end
return answer
