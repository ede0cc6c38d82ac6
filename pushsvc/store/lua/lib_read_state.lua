-- The read state of a mailbox: each entry of the log that its user is to see is in one of three sorted sets,
-- unread, read or archived, by its expiry. Their keys are no KEYS: they are that of the log with another end,
-- in its slot, and live as long. A publish puts nothing into them: who counts brings them up to date. SEEN says how
-- far they are: up to which id, how many entries of the log that is, and which of these were acknowledged
-- before anybody counted.

-- The key of a set.
local function set_of(log, which)
  return string.sub(log, 1, -#LOG - 1) .. which
end
