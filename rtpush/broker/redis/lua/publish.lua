-- Publish a message: one atomic step. Return "EPOCH OFFSET", or "" for one without history.
--
-- key is an idempotency key or empty; size and ttl (milliseconds) bound the history.
local function publish(channel, kind, event, data, key_, history, size, ttl, position_ttl, window, salt)
  local published
  if key_ ~= '' then
    published = key('published', channel) .. ':' .. key_
    local first = redis.call('GET', published)
    if first then
      return first
    end
  end
  local at = now()
  local rest = kind .. ' ' .. #event .. ' ' .. event .. data
  local result = ''
  if history then
    local epoch, offset, before = newest(channel, at, salt)
    offset = offset + 1
    at = math.max(at, before + 1)
    local position, stream = key('position', channel), key('history', channel)
    local record = 'm ' .. epoch .. ' ' .. integer(offset) .. ' ' .. integer(at) .. ' ' .. integer(before) .. ' ' .. rest
    result = epoch .. ' ' .. integer(offset)
    if size > 0 then
      redis.call('XADD', stream, 'MAXLEN', size, integer(offset) .. '-0', 'm', record)
      redis.call('PEXPIRE', stream, ttl)
      if offset % 64 == 0 then
        expire(channel, at, ttl)
      end
    else
      redis.call('DEL', stream)
    end
    redis.call('HSET', position, 'offset', integer(offset), 'time', integer(at))
    redis.call('PEXPIRE', position, position_ttl)
    announce(channel, record)
  else
    announce(channel, 'v - 0 0 0 ' .. rest)
  end
  if published and window > 0 then
    redis.call('SET', published, result, 'PX', window)
  end
  return result
end
