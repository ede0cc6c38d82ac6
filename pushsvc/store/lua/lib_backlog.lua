-- Reading a feed; goes after the marks and the entry.

-- What follows a position in a feed, at most `count` entries and about `bytes` bytes.
-- `meta` is what the cursors have of HEAD, STORED, TRIMMED and FIRST, and maybe more. `marks` is nil for feeds from which
-- nothing is withdrawn; what was withdrawn is told from `told` on, nil for the start. What is for another
-- device than `device` is passed over.
-- Returns {cursor, head, start, upto, gap, extra, id, body, id, body, ...}: everything after `start`
-- up to `upto` is accounted for; a false body stands for an entry whose time to live has passed, a
-- number for one that was withdrawn. Of a mailbox an id has ' r' behind it where the entry is read, ' a'
-- where it is archived.
local function backlog(log, meta, marks, cursor, held, count, bytes, extra, told, device)
  local head, stored, trimmed, first = meta[1] or '0-0', meta[2], meta[3], meta[4]
  local start, gap = cursor, ''
  if held ~= '' and less(cursor, held) then
    start = held
  end
  local position = held == '' and cursor or held
  if less(head, start) or (first and position ~= '0-0' and less(position, first)) then
    -- The data set ends before what the connection has seen, or began after it: Redis was emptied
    -- or rolled back.
    gap = 'reset'
    start = cursor
    if less(head, start) then
      start = '0-0'
    end
  end
  local upto, size, looked = head, 0, 0
  local answer = {cursor, head, start, upto, gap, extra}
  local from, most = start, less(start, head) and math.min(8, count) or 0
  local now = most > 0 and now_ms()
  while most > 0 do
    local entries = redis.call('XRANGE', log, '(' .. from, '+', 'COUNT', most)
    if #entries == 0 and looked == 0 and stored and less(start, stored)
        and redis.call('EXISTS', log) == 0 then
      trimmed = stored -- the whole log passed its retention
    end
    for _, entry in ipairs(entries) do
      local body = entry[2][4]
      from, looked, size = entry[1], looked + 1, size + #body
      local whose = device_of(entry[2])
      if whose == '' or whose == device then
        answer[#answer + 1] = from
        answer[#answer + 1] = tonumber(entry[2][2]) > now and body
      end
      if size >= bytes or looked == count then
        upto = from
        break
      end
    end
    if #entries < most or upto ~= head then
      break
    end
    -- As many as will do, if they are like those before.
    most = math.min(count - looked, 1 + math.floor((bytes - size) * looked / size))
  end
  if gap == '' and trimmed and less(start, trimmed) then
    answer[5] = 'trimmed'
  end
  answer[4] = upto
  local fields = marks and less(told or start, upto) and redis.call('HKEYS', marks) or {}
  local withdrawn = #fields > 0 and marked(fields, 'w', told or start, upto) or {}
  if #withdrawn > 0 then
    local all = {}
    for _, each in ipairs(withdrawn) do
      local why, whose = string.match(redis.call('HGET', marks, 'w:' .. each[3]), '^(%S*) ?(.*)$')
      if whose == '' or whose == device then
        each[4] = why == 'acked' and 2 or 1
        all[#all + 1] = each
      end
    end
    for i = 7, #answer, 2 do
      local ms, sequence = split(answer[i])
      all[#all + 1] = {ms, sequence, answer[i], answer[i + 1]}
    end
    table.sort(all, earlier)
    for i, each in ipairs(all) do
      answer[5 + 2 * i], answer[6 + 2 * i] = each[3], each[4]
    end
  end
  local of = string.sub(log, 1, -#LOG - 1)
  if marks and #answer > 6 and redis.call('EXISTS', of .. READ, of .. ARCHIVED) > 0 then
    local ids = {}
    for i = 7, #answer, 2 do
      ids[#ids + 1] = answer[i]
    end
    for which, set in pairs({r = READ, a = ARCHIVED}) do
      for i, expires in ipairs(redis.call('ZMSCORE', of .. set, unpack(ids))) do
        if expires then
          answer[5 + 2 * i] = ids[i] .. ' ' .. which
        end
      end
    end
  end
  return answer
end
