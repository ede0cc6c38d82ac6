-- A page of what a mailbox keeps, newest first, and what is known of who acknowledged it.
-- WITH: marks, read_state, unread, acks, entry
-- KEYS: log, cursors, acks
-- ARGV: id before which to begin ('' = with the newest), most entries, bytes, most entries and most
--       acks that are looked at; which read states, each by its letter; which event, '' for any
-- Returns {next, since, {id, expiry, body, the device that it is for or '', state, ...}, {field of the cursors,
-- value, ...}, {time and number, device, id, ...}, unread}: `next` is where the next page begins, '' at the end;
-- acks made before `since` (ms) are no longer known. A state is 'u', unread, 'r', read, 'a', archived, or 's', a
-- signal, which has none. The first entry of a page may go over the bytes, of which those that are only looked
-- at are a part. Where the read state takes another call to be up to date, nothing but unread, which is -1 then.
local log, cursors, acks = KEYS[1], KEYS[2], KEYS[3]
local last, most, bytes, looks = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local states, event = ARGV[5], ARGV[6]
local before = last
local now = now_ms()
local fields = redis.call('HMGET', cursors, STORED, SEEN)
local unread = count_unread(log, cursors, fields[1], fields[2], now)
if unread < 0 then
  return {'', '0', {}, {}, {}, unread}
end
-- Of most mailboxes there are not both.
local sets = {}
for letter, which in pairs({r = READ, a = ARCHIVED}) do
  if redis.call('EXISTS', set_of(log, which)) == 1 then
    sets[letter] = set_of(log, which)
  end
end

-- The state of each of some entries.
local function states_of(entries)
  local found, ids = {}, {}
  for i, entry in ipairs(entries) do
    found[i], ids[i] = 'u', entry[1]
    for j = 5, #entry[2], 2 do
      if entry[2][j] == SIGNAL then
        found[i] = 's'
      end
    end
  end
  if #ids > 0 then
    for letter, set in pairs(sets) do
      for i, expires in ipairs(redis.call('ZMSCORE', set, unpack(ids))) do
        found[i] = expires and letter or found[i]
      end
    end
  end
  return found
end

-- Whether a body is of the event that is asked for: it begins with it, or with a trace and then with it.
local is_event = event ~= '' and '"event":"' .. event .. '"'
local function wanted(body, state)
  if not string.find(states, state, 1, true) then
    return false
  end
  local from = 1
  if is_event and string.sub(body, 1, 15) == '"traceparent":"' then
    from = string.find(body, ',', 1, true) + 1
  end
  return not is_event or string.sub(body, from, from + #is_event - 1) == is_event
end

-- One page, without those whose time to live has passed.
local function page()
  local found, size, looked = {}, 0, 0
  while looked < looks do
    local count = math.min(CHUNK, most + 1 - #found / 5, looks - looked)
    local chunk =
      redis.call('XREVRANGE', log, last == '' and '+' or '(' .. last, '-', 'COUNT', count)
    local its = states_of(chunk)
    for i, entry in ipairs(chunk) do
      local id, expires, body = entry[1], entry[2][2], entry[2][4]
      size = size + #body
      local live = tonumber(expires) > now and wanted(body, its[i])
      if live and #found == 5 * most or last ~= before and size > bytes then
        return found, last
      end
      if live then
        found[#found + 1] = id
        found[#found + 1] = expires
        found[#found + 1] = body
        found[#found + 1] = device_of(entry[2])
        found[#found + 1] = its[i]
      end
      last = id
    end
    if #chunk < count then
      return found, ''
    end
    looked = looked + count
  end
  return found, last
end

local found, following = {}, ''
if not (last == '0-0' or states == 'u' and unread == 0 or states == 'a' and not sets.a) then
  found, following = page()
end
local answer = {following, acks_since(acks), found, redis.call('HGETALL', cursors), {}, unread}
if #found > 0 then
  answer[5] = acks_from(acks, found[#found - 4], looks)
end
return answer
