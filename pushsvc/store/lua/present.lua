-- Say who of a node came to a topic and who left it.
-- KEYS: present, listeners
-- ARGV: node id, retention (ms), how many came, user, ...
-- Returns the nodes that listen to the topic, none where nothing has changed.
local present, node, came = KEYS[1], ARGV[1], tonumber(ARGV[3])
local changed = 0
for i = 4, #ARGV do
  local field = node .. ' ' .. ARGV[i]
  if i - 3 <= came then
    changed = changed + redis.call('HSET', present, field, '1')
  else
    changed = changed + redis.call('HDEL', present, field)
  end
end
keep_alive(present, tonumber(ARGV[2]) * 2)
return changed > 0 and redis.call('HKEYS', KEYS[2]) or {}
