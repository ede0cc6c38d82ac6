-- What stands in an entry of a log beside its expiry and its body.

-- The device that an entry is for, '' where it is for all. Its fields are the expiry and the body, which
-- nodes of before read by their places, and what came later goes behind these.
local function device_of(fields)
  for i = 5, #fields, 2 do
    if fields[i] == DEVICE then
      return fields[i + 1]
    end
  end
  return ''
end
