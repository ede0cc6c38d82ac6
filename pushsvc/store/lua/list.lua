-- A page of what a mailbox keeps, newest first, and what is known of who acknowledged it.
-- WITH: acks, entry
-- KEYS: log, cursors, acks
-- ARGV: id before which to begin ('' = with the newest), most entries, bytes, most entries and most
--       acks that are looked at
-- Returns {next, since, {id, expiry, body, the device that it is for or '', ...}, {field of the cursors, value, ...},
-- {time and number, device, id, ...}}: `next` is where the next page begins, '' at the end; acks made
-- before `since` (ms) are no longer known. The first entry of a page may go over the bytes,
-- of which those that are only looked at are a part.
local log, cursors, acks = KEYS[1], KEYS[2], KEYS[3]
local last, most, bytes, looks = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local before = last
local CHUNK = 32

-- One page, without those whose time to live has passed.
local function page()
  local now, found, size, looked = now_ms(), {}, 0, 0
  while looked < looks do
    local count = math.min(CHUNK, most + 1 - #found / 4, looks - looked)
    local chunk =
      redis.call('XREVRANGE', log, last == '' and '+' or '(' .. last, '-', 'COUNT', count)
    for _, entry in ipairs(chunk) do
      local id, expires, body = entry[1], entry[2][2], entry[2][4]
      size = size + #body
      local live = tonumber(expires) > now
      if live and #found == 4 * most or last ~= before and size > bytes then
        return found, last
      end
      if live then
        found[#found + 1] = id
        found[#found + 1] = expires
        found[#found + 1] = body
        found[#found + 1] = device_of(entry[2])
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

local found, following = page()
local answer = {following, acks_since(acks), found, redis.call('HGETALL', cursors), {}}
if #found > 0 then
  answer[5] = acks_from(acks, found[#found - 3], looks)
end
return answer
