-- Remove all of a feed that is kept under a name known ahead.
-- KEYS: the cursors, and all else
-- Returns {the newest id, how many keys there were, the first id that may be published from now on}.
local now = string.format('%.0f-0', now_ms())
return {redis.call('HGET', KEYS[1], HEAD) or '0-0', redis.call('DEL', unpack(KEYS)), now}
