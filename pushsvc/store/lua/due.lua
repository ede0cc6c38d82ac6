-- What is scheduled and due.
-- KEYS: times, scheduled
-- ARGV: most of them, bytes after which there are no more
-- Returns {in how long to look again (ms, '' where nothing waits), id, when (ms), item, ...}, the
-- earliest first; the item is false where it is lost.
local times, scheduled, most, bytes = KEYS[1], KEYS[2], tonumber(ARGV[1]), tonumber(ARGV[2])
local now = now_ms()
local ids = redis.call('ZRANGEBYSCORE', times, '-inf', now, 'WITHSCORES', 'LIMIT', 0, most)
local answer, size = {''}, 0
for i = 1, #ids, 2 do
  if size > bytes then
    break
  end
  local item = redis.call('HGET', scheduled, ids[i])
  size = size + #(item or '')
  answer[#answer + 1] = ids[i]
  answer[#answer + 1] = tonumber(ids[i + 1])
  answer[#answer + 1] = item
end
local following = redis.call('ZRANGE', times, (#answer - 1) / 3, (#answer - 1) / 3, 'WITHSCORES')[2]
if following then
  answer[1] = math.max(0, tonumber(following) - now)
end
return answer
