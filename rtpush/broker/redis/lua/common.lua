-- What all scripts begin with. @P@ stands for the prefix, which is another one for each installation.
--
-- Of each channel there are:
--   @P@:position:{CHANNEL}       a hash: the epoch, and the offset and time of its newest message
--   @P@:history:{CHANNEL}        a stream: the records of the messages that are kept, each with the id OFFSET-0
--   @P@:published:{CHANNEL}:KEY  the answer to a publish with this idempotency key
--   @P@:presence:{CHANNEL}       a hash: connection -> "NODE TRANSPORT[:USER] INFO"
--   @P@:channel:{CHANNEL}        not a key but what nodes subscribe to: each record as it is published
--
-- Times are microseconds since 1970. In a channel they ascend from message to message, so that each tells two messages
-- with the same offset apart: there are two if Redis has lost one that it had accepted. A record is
--   m EPOCH OFFSET TIME BEFORE KIND EVENT-LENGTH EVENT..DATA
-- where BEFORE is the time of the message before, and KIND is j (JSON), t (text), b (binary), or a (any)
-- or s (text) from those whose data nobody has looked at.

-- Milliseconds for which the position of a channel is kept that had no message; nodes that follow it renew it.
local UNPUBLISHED = 600000

local function integer(number)
  return string.format('%.0f', number)
end

local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function key(kind, channel)
  return '@P@:' .. kind .. ':{' .. channel .. '}'
end

-- Scripts are given a channel as the key of its position: so Redis sees what they are about.
local function channel_of(position)
  return string.sub(position, #'@P@:position:{' + 1, -2)
end

local function announce(channel, record)
  redis.call('PUBLISH', key('channel', channel), record)
end

-- Begin the history of a channel anew: return epoch, offset and time.
local function begin(channel, at, salt)
  local epoch = string.sub(redis.sha1hex(channel .. ' ' .. integer(at) .. ' ' .. salt), 1, 12)
  local position = key('position', channel)
  -- First what a full Redis refuses: once a script has written, it is refused nothing.
  redis.call('HSET', position, 'epoch', epoch, 'offset', '0', 'time', integer(at))
  redis.call('DEL', key('history', channel))
  redis.call('PEXPIRE', position, UNPUBLISHED)
  return epoch, 0, at
end

-- Return epoch, offset and time of the newest message.
local function newest(channel, at, salt)
  local found = redis.call('HMGET', key('position', channel), 'epoch', 'offset', 'time')
  if found[1] then
    return found[1], tonumber(found[2]), tonumber(found[3])
  end
  return begin(channel, at, salt)
end

-- The same, for one who knows of a message: if that is not there as it was, Redis has lost what it had, and history
-- begins anew, so that nobody takes a later message for one that he has seen.
local function verified(channel, at, salt, known_epoch, known_offset, known_time)
  local epoch, offset, time = newest(channel, at, salt)
  if epoch ~= known_epoch then
    return epoch, offset, time
  end
  known_offset = tonumber(known_offset)
  local same
  if offset > known_offset then
    local id = integer(known_offset + 1) .. '-0'
    local following = redis.call('XRANGE', key('history', channel), id, id)
    -- Where the one after it is not kept, who asks is told of a gap anyway.
    same = #following == 0 or string.match(following[1][2][2], '^m %S+ %d+ %d+ (%d+) ') == known_time
  else
    same = offset == known_offset and integer(time) == known_time
  end
  if same then
    return epoch, offset, time
  end
  epoch, offset, time = begin(channel, at, salt)
  announce(channel, 'p ' .. epoch)
  return epoch, offset, time
end

-- Drop the messages that are older than ttl milliseconds.
local function expire(channel, at, ttl)
  local history = key('history', channel)
  local limit = at - ttl * 1000
  local from, count = '-', 1
  while true do
    local entries = redis.call('XRANGE', history, from, '+', 'COUNT', count)
    for index, entry in ipairs(entries) do
      if tonumber(string.match(entry[2][2], '^m %S+ %d+ (%d+) ')) > limit then
        if from ~= '-' or index > 1 then
          redis.call('XTRIM', history, 'MINID', entry[1])
        end
        return
      end
    end
    if #entries < count then
      redis.call('DEL', history)
      return
    end
    from, count = '(' .. entries[#entries][1], 100
  end
end
