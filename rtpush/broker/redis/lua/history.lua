-- Read the records after a position, or before it, for at most a number of them or about a mebibyte.
-- Return epoch, offset, how many are kept, then the records.
local MOST_BYTES = 1048576

local channel, direction = channel_of(KEYS[1]), ARGV[1]
local since_epoch, since_offset, since_time = ARGV[2], tonumber(ARGV[3]), ARGV[4]
local limit, ttl, salt = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
local at = now()
local epoch, offset
if since_time ~= '' then
  epoch, offset = verified(channel, at, salt, since_epoch, since_offset, since_time)
else
  epoch, offset = newest(channel, at, salt)
end
local history = key('history', channel)
expire(channel, at, ttl)
local result = { epoch, integer(offset), redis.call('XLEN', history) }
if since_epoch ~= '' and since_epoch ~= epoch then
  return result
end
local bytes = 0
while limit > 0 and bytes < MOST_BYTES do
  local count = math.min(limit, 50)
  local entries
  if direction == 'after' then
    entries = redis.call('XRANGE', history, integer(since_offset + 1) .. '-0', '+', 'COUNT', count)
  elseif since_offset > 1 then
    entries = redis.call('XREVRANGE', history, integer(since_offset - 1) .. '-0', '-', 'COUNT', count)
  else
    entries = {}
  end
  for _, entry in ipairs(entries) do
    local record = entry[2][2]
    result[#result + 1] = record
    bytes = bytes + #record
    since_offset = tonumber(string.match(entry[1], '^%d+'))
    if bytes >= MOST_BYTES then
      break
    end
  end
  limit = limit - count
  if #entries < count then
    break
  end
end
return result
