-- What was revoked since a reader's last look.
-- KEYS: entries, order, revision
-- ARGV: the data set that the reader knows, how far it has read it, most entries
-- Returns {data set, how far this goes, field, 'until issued', ...}; from the beginning where the
-- data set is not the one that the reader knows, and '' with nothing where there is none.
local known = redis.call('HMGET', KEYS[3], 'epoch', 'seq')
local epoch, upto = known[1] or '', known[2] or '0'
local after = epoch == ARGV[1] and ARGV[2] or '0'
local answer = {epoch, upto}
if after ~= upto then
  local rows = redis.call(
    'ZRANGEBYSCORE', KEYS[2], '(' .. after, '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[3]
  )
  for i = 1, #rows, 2 do
    answer[#answer + 1] = rows[i]
    answer[#answer + 1] = redis.call('HGET', KEYS[1], rows[i])
    if i == 2 * ARGV[3] - 1 then
      answer[2] = rows[i + 1]
    end
  end
end
return answer
