-- Say how many are at a topic, and who: all of them, or some where they are many. What a hash of
-- tens of thousands costs to read, everyone waits for.
-- KEYS: present
-- ARGV: most of whom all are told, how many are told of more
-- Returns {how many, field, ...}.
local count = redis.call('HLEN', KEYS[1])
if count <= tonumber(ARGV[1]) then
  local all = redis.call('HKEYS', KEYS[1])
  table.insert(all, 1, count)
  return all
end
local some = tonumber(ARGV[2])
local fields = redis.call('HSCAN', KEYS[1], '0', 'COUNT', some)[2]
local answer = {count}
for i = 1, math.min(#fields, 2 * some), 2 do
  answer[#answer + 1] = fields[i]
end
return answer
