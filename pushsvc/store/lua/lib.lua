-- Shared by every script: this text is put before each of them, and after it the other libraries that
-- its line WITH names: what is defined is made anew for each call.

-- Fields of the cursors hash that are not devices, whose stored form holds no tilde.
local HEAD, STORED, TRIMMED, EVICTED = '~head', '~stored', '~trimmed', '~evicted'
-- The first id that was published to this data set.
local FIRST = '~first'
-- Of a topic that clients publish to: at most how many bytes it holds, and until when it is full.
local BYTES = '~bytes'
-- Of a topic: the newest id in the log up to which the order of its latest is known to be right.
local ORDERED = '~ordered'
-- Of a mailbox: how far its read state is up to date.
local SEEN = '~seen'
-- Before a device: its position in the broadcast.
local BROADCAST = '~b:'
-- Before a device: where it began, which it has not acknowledged itself.
local BEGAN = '~s:'
-- Of an entry of the log, behind its body: the one device that it is for.
local DEVICE = 'v'

-- The time, the same for all runs of a call.
local call_ms

local function now_ms()
  if not call_ms then
    local time = redis.call('TIME')
    call_ms = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  return call_ms
end

-- What the key of a node's inbox ends with, and a batch of entries there.
local INBOX, PACKET = ':inbox', 'p'

-- What the keys of a mailbox's log and of its read state end with, and how its log says of an entry that it
-- has none.
local LOG, UNREAD, READ, ARCHIVED = ':log', ':unread', ':read', ':archived'
local SIGNAL = 'n'
-- What those of its pushes end with.
local DEVICES, PUSHES, PUSH, ASKED, TOLD = ':devices', ':pushes', ':push:', ':asked', ':told'
-- Of a push record: what is shown, who wants receipts, its event and its collapse key; and before a device,
-- that the receipt of its outcome is yet to be given.
local TEXT, PUBLISHER, EVENT, KEY, OWED = '~text', '~publisher', '~event', '~key', '~owed:'
-- Of the cursors of a mailbox: the newest id whose publisher is told when it is read.
local ASKS = '~asks'

-- How long a key is given (ms) that must be there for so long after each use: it is renewed once a
-- sixteenth of its life has passed, since a renewal is a write, which replicas and the disk get too.
local function lifetime(ms)
  return math.ceil(ms * 16 / 15)
end

-- Have a key live on, which lives for so long (ms), and no longer, where it was given more under an
-- earlier setting; whether it had to be renewed.
local function keep_alive(key, life)
  local left = redis.call('PTTL', key)
  if left < life * 15 / 16 or left > life then
    redis.call('PEXPIRE', key, life)
    return true
  end
end

-- The milliseconds of an id. What is added makes a number of it, at less than a call.
local function ms_of(id)
  return string.match(id, '^%d+') + 0
end

local function split(id)
  local dash = string.find(id, '-', 1, true)
  return string.sub(id, 1, dash - 1) + 0, string.sub(id, dash + 1) + 0
end

local function less(a, b)
  -- As text, where both have milliseconds of 13 digits, as they have until 2286; a client may name any id.
  if #a == #b and string.byte(a, 14) == 45 and string.byte(b, 14) == 45 then
    return a < b
  end
  local a_ms, b_ms = ms_of(a), ms_of(b)
  if a_ms ~= b_ms then
    return a_ms < b_ms
  end
  local _, a_seq = split(a)
  local _, b_seq = split(b)
  return a_seq < b_seq
end

-- Whether the id that one list begins with, in its two parts, is below another's.
local function earlier(a, b)
  return a[1] < b[1] or (a[1] == b[1] and a[2] < b[2])
end
