-- Pushes of a mailbox; goes after the marks, the entry and the read state.

-- What of a push is to be done now: {nil} where it is to be forgotten, else
-- {{device, ...} that it is due for, time of the next attempt of another (ms) or nil,
-- {device, ...} whose receipts are owed, the record, when the entry expires (ms)}.
-- `registered` is the hash of the devices that are registered, as it was read.
local function look_at_push(log, cursors, mailbox, registered, id, now)
  local fields, record = redis.call('HGETALL', mailbox .. PUSH .. id), {}
  for i = 1, #fields, 2 do
    record[fields[i]] = fields[i + 1]
  end
  local owed, due, following = {}, {}, nil
  for field in pairs(record) do
    if string.sub(field, 1, #OWED) == OWED then
      owed[#owed + 1] = string.sub(field, #OWED + 1)
    end
  end
  table.sort(owed)
  local entry = record[TEXT] and redis.call('XRANGE', log, id, id)[1]
  local expires = entry and entry[2][2] + 0 or 0
  if expires > now and not redis.call('ZSCORE', set_of(log, READ), id)
      and not redis.call('ZSCORE', set_of(log, ARCHIVED), id) then
    local whose = device_of(entry[2])
    for i = 1, #registered, 2 do
      local device = registered[i]
      local upto, began = position(cursors, device)
      local acked = less(began, id) and not less(upto, id)
      if not acked and (whose == '' or whose == device) then
        local outcome = record[device]
        local again = outcome and tonumber(string.match(outcome, '^retry (%d+)'))
        if not outcome or again and again <= now then
          due[#due + 1] = device
        elseif again and again < (following or math.huge) then
          following = again
        end
      end
    end
  end
  return {due, following, owed, record, expires}
end

-- Whether anything of a push is yet to be done. If not, or only later, that is written down.
local function put_off(pushes, id, found, now)
  if #found[1] > 0 or #found[3] > 0 then
    redis.call('ZADD', pushes, 'LT', string.format('%.0f', now), id) -- since when it is due stays
    return true
  elseif found[2] then
    redis.call('ZADD', pushes, string.format('%.0f', found[2]), id)
  else
    redis.call('ZREM', pushes, id)
  end
  return false
end
