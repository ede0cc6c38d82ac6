-- Say how many listen on a node, where it is registered. One that has left since stays so, and no hash
-- comes back that nothing lets expire.
-- RUNS: 64
-- KEYS: listeners
-- ARGV: node id, how many listen there
-- Returns 1 where it is registered, 0 where it is not.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
