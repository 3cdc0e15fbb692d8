-- Take the connections of a dead node out of the channels, at most a hundred channels at a time, and announce that they
-- left. Return whether nothing is left to do.
local node = ARGV[1]
local own = '@P@:present:' .. node
local page = redis.call('HSCAN', own, '0', 'COUNT', 100)[2]
for index = 1, #page, 2 do
  local channel = page[index]
  local presence = key('presence', channel)
  local found = redis.call('HGETALL', presence)
  for entry = 1, #found, 2 do
    local owner, said = string.match(found[entry + 1], '^(%S+) (.*)$')
    if owner == node then
      redis.call('HDEL', presence, found[entry])
      announce(channel, 'l ' .. found[entry] .. ' ' .. said)
    end
  end
  redis.call('HDEL', own, channel)
end
if redis.call('HLEN', own) > 0 then
  return 0
end
redis.call('SREM', '@P@:graves', node)
return 1
