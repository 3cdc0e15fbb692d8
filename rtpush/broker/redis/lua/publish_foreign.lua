-- What anybody may call:  CHANNEL as the key, DATA, then names and values of options. Return "EPOCH:OFFSET", or nothing
-- for a message without history.
local RESERVED = { open = true, gap = true, unsubscribed = true, disconnect = true }
local KINDS = { json = 'a', text = 's', binary = 'b' }

local function publish_foreign(keys, arguments)
  local channel, data = keys[1], arguments[1]
  if #keys ~= 1 or not data or #arguments % 2 == 0 then
    return redis.error_reply('ERR expected one key, which is the channel, then the data, then names and values of options')
  end
  if #channel < 1 or #channel > 255 or string.find(channel, '[^!-~]') or string.find(channel, '[",\\]') then
    return redis.error_reply('ERR bad_channel: expected 1 to 255 printable ASCII characters without space, comma, " and \\')
  end
  local name = string.match(channel, '^([^:]*):') or 'default'
  local namespace = NAMESPACES[name]
  if not namespace then
    return redis.error_reply('ERR unknown_channel: there is no namespace ' .. name)
  end
  if #data > MESSAGE_BYTES then
    return redis.error_reply('ERR message_too_large: expected ' .. MESSAGE_BYTES .. ' bytes at most')
  end
  local options = { kind = 'json', event = '', key = '', history = 'yes' }
  for index = 2, #arguments, 2 do
    if not options[arguments[index]] then
      return redis.error_reply('ERR bad_request: the options are kind, event, key and history, not ' .. arguments[index])
    end
    options[arguments[index]] = arguments[index + 1]
  end
  if not KINDS[options.kind] then
    return redis.error_reply('ERR bad_request: kind is json, text or binary')
  end
  if options.history ~= 'yes' and options.history ~= 'no' then
    return redis.error_reply('ERR bad_request: history is yes or no')
  end
  if #options.event > 128 or string.find(options.event, '%c') or RESERVED[options.event] then
    return redis.error_reply('ERR bad_request: bad or reserved event name')
  end
  if #options.key > 128 then
    return redis.error_reply('ERR bad_request: key is longer than 128 bytes')
  end
  local position = publish(
    channel, KINDS[options.kind], options.event, data, options.key, options.history == 'yes',
    namespace[1], namespace[2], POSITION_TTL, WINDOW, SALT
  )
  if position == '' then
    return false
  end
  return (string.gsub(position, ' ', ':'))
end
