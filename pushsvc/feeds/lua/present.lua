-- Say who of a node came to a topic and who left it.
-- KEYS: present, listeners
-- ARGV: node id, retention (ms), how many came, user, ...
-- Returns the nodes that listen to the topic.
local present, node, came = KEYS[1], ARGV[1], tonumber(ARGV[3])
for i = 4, #ARGV do
  local field = node .. ' ' .. ARGV[i]
  if i - 3 <= came then
    redis.call('HSET', present, field, '1')
  else
    redis.call('HDEL', present, field)
  end
end
redis.call('PEXPIRE', present, tonumber(ARGV[2]) * 2)
return redis.call('HKEYS', KEYS[2])
