-- What is special about single entries of a mailbox.

-- Of the fields of a hash of marks, the ids that are marked with `kind`, after one id and up to another
-- (nil for any), in order: {{ms, sequence, id}, ...}.
-- `a` marks what any one device may settle, `w` what was withdrawn, why, and of which device where it was
-- for one, `r` what is owed a receipt, `v` the one device that such a thing is for.
local function marked(fields, kind, after, upto)
  local low, high = {-1, 0}, {math.huge, 0}
  if after then
    low = {split(after)}
  end
  if upto then
    high = {split(upto)}
  end
  local first = string.byte(kind)
  local found = {}
  for _, field in ipairs(fields) do
    if string.byte(field) == first then
      local dash = string.find(field, '-', 3, true)
      local ms = tonumber(string.sub(field, 3, dash - 1))
      if ms >= low[1] and ms <= high[1] then
        local each = {ms, tonumber(string.sub(field, dash + 1)), string.sub(field, 3)}
        if earlier(low, each) and not earlier(high, each) then
          found[#found + 1] = each
        end
      end
    end
  end
  table.sort(found, earlier)
  return found
end

-- The ids that are marked with `kind`, as a set.
local function among(fields, kind)
  local first, found = string.byte(kind), {}
  for _, field in ipairs(fields) do
    if string.byte(field) == first then
      found[string.sub(field, 3)] = true
    end
  end
  return found
end

-- The newest id that any device has acknowledged, and how many devices have a cursor.
local function furthest(cursors)
  local newest, devices = '0-0', 0
  local fields = redis.call('HGETALL', cursors)
  for i = 1, #fields, 2 do
    if string.sub(fields[i], 1, 1) ~= '~' then
      devices = devices + 1
      if less(newest, fields[i + 1]) then
        newest = fields[i + 1]
      end
    end
  end
  return newest, devices
end

-- Up to where a device has acknowledged, and where it began, which it has not acknowledged itself.
local function position(cursors, device)
  local found = redis.call('HMGET', cursors, device, BEGAN .. device)
  return found[1] or '0-0', found[2] or '0-0'
end

-- Whether an entry is acknowledged, which of what is for one device only that one can do.
local function acknowledged(cursors, marks, id)
  local device = redis.call('HGET', marks, 'v:' .. id)
  if not device then
    return not less((furthest(cursors)), id)
  end
  local upto, began = position(cursors, device)
  return less(began, id) and not less(upto, id)
end

-- An entry leaves its mailbox. If it is owed a receipt and nobody has acknowledged it, then that is
-- how it ended: later acks of what followed it do not mean it.
-- Returns 1 if it is owed a receipt, and 0 if not.
local function ended(cursors, marks, id, how)
  local mark = redis.call('HGET', marks, 'r:' .. id)
  if not mark then
    return 0
  end
  if string.find(mark, '^%S+ %d+$') and not acknowledged(cursors, marks, id) then
    local at = string.format('%.0f', now_ms())
    redis.call('HSET', marks, 'r:' .. id, mark .. ' ' .. how .. ' ' .. at)
  end
  return 1
end
