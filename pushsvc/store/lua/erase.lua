-- Remove all of a feed that is kept under a name known ahead.
-- KEYS: the cursors, and all else
-- Returns {the newest id, how many keys there were}.
return {redis.call('HGET', KEYS[1], HEAD) or '0-0', redis.call('DEL', unpack(KEYS))}
