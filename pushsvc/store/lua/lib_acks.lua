-- Who acknowledged what, and when.

-- The time from which on every ack is known: what is not needed for the mailbox's size is trimmed.
local function acks_since(acks)
  if redis.call('EXISTS', acks) == 0 then
    return '0'
  end
  local info = {}
  local fields = redis.call('XINFO', 'STREAM', acks)
  for i = 1, #fields, 2 do
    info[fields[i]] = fields[i + 1]
  end
  if info['entries-added'] == info['length'] then
    return '0'
  end
  return string.match(info['first-entry'][1], '^%d+')
end

-- The acks of an entry of a mailbox and of later ones, as {time and number, device, id, ...}: an entry
-- is acknowledged after it was published.
local function acks_from(acks, id, most)
  local told = {}
  for _, entry in ipairs(redis.call('XRANGE', acks, string.match(id, '^%d+'), '+', 'COUNT', most)) do
    told[#told + 1] = entry[1]
    told[#told + 1] = entry[2][2]
    told[#told + 1] = entry[2][4]
  end
  return told
end
