-- The state of a topic: the latest of each key, and their order.

-- Whether the order of a topic's latest is right. Nodes of before write the latest alone, so it may be
-- wrong since the first stored by one of them: from there on the cursors' ORDERED stands still. As many
-- of both says nothing: what those nodes added may make up for what they replaced.
local function in_order(latest, order, stored, ordered)
  return stored == ordered and redis.call('HLEN', latest) == redis.call('XLEN', order)
end

-- Write the order of a topic's latest anew: nodes of before write the latest alone.
local function put_in_order(latest, order, retention)
  local found = {}
  for _, key in ipairs(redis.call('HKEYS', latest)) do
    local value = redis.call('HGET', latest, key)
    local id, expires = string.match(value, '^(%S+) (%S+)')
    local ms, seq = split(id)
    found[#found + 1] = {ms, seq, id, key, expires .. ' ' .. #value}
  end
  table.sort(found, earlier)
  redis.call('DEL', order)
  for _, each in ipairs(found) do
    redis.call('XADD', order, each[3], each[4], each[5])
  end
  redis.call('PEXPIRE', order, retention)
end

-- Remove one of a topic's latest, but for its value where the key has a newer one by now.
local function remove_latest(latest, order, id, key)
  local value = redis.call('HGET', latest, key)
  if value and string.match(value, '^%S+') == id then
    redis.call('HDEL', latest, key)
  end
  redis.call('XDEL', order, id)
end
