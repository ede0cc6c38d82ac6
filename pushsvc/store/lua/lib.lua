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
-- Before a device: its position in the broadcast.
local BROADCAST = '~b:'
-- Before a device: where it began, which it has not acknowledged itself.
local BEGAN = '~s:'

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function split(id)
  local dash = string.find(id, '-', 1, true)
  return tonumber(string.sub(id, 1, dash - 1)), tonumber(string.sub(id, dash + 1))
end

local function less(a, b)
  local a_ms, a_seq = split(a)
  local b_ms, b_seq = split(b)
  return a_ms < b_ms or (a_ms == b_ms and a_seq < b_seq)
end

-- Whether the id that one list begins with, in its two parts, is below another's.
local function earlier(a, b)
  return a[1] < b[1] or (a[1] == b[1] and a[2] < b[2])
end
