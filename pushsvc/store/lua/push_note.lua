-- Write down what came of a push, and that the receipts of it are owed.
-- KEYS: the push record
-- ARGV: of each device its name, 'sent', 'failed' or 'retry', in how long it is tried again (ms, of a retry),
--       and what follows the time in its outcome
-- Returns {when (ms), who wants receipts, each device whose outcome is new}. One that is final stays as it is:
-- it was written by who came first.
local record = KEYS[1]
local now = now_ms()
local publisher = redis.call('HGET', record, PUBLISHER)
if not publisher then
  return {now, ''} -- it has gone with the entry
end
local answer = {now, publisher}
for i = 1, #ARGV, 4 do
  local device, state = ARGV[i], ARGV[i + 1]
  local there = redis.call('HGET', record, device)
  if not there or string.find(there, '^retry ') then
    local at = string.format('%.0f', now + (state == 'retry' and ARGV[i + 2] or 0))
    redis.call('HSET', record, device, state .. ' ' .. at .. ' ' .. ARGV[i + 3])
    if publisher ~= '' and state ~= 'retry' then
      redis.call('HSET', record, OWED .. device, '1')
    end
    answer[#answer + 1] = device
  end
end
return answer
