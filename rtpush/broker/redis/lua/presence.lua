-- Note who came (j), is there (r) and went (l): after the node, groups of operation, channel, connection and
-- "TRANSPORT INFO".
--
-- @P@:present:NODE is a hash: channel -> how many connections of the node are in it.
local node = ARGV[1]
local own = '@P@:present:' .. node
for index = 2, #ARGV, 4 do
  local operation, channel, connection, said = ARGV[index], ARGV[index + 1], ARGV[index + 2], ARGV[index + 3]
  local presence = key('presence', channel)
  local before = redis.call('HGET', presence, connection)
  local was_own = before and string.sub(before, 1, #node + 1) == node .. ' '
  if operation == 'l' then
    if before then
      redis.call('HDEL', presence, connection)
      if was_own and redis.call('HINCRBY', own, channel, -1) <= 0 then
        redis.call('HDEL', own, channel)
      end
      announce(channel, 'l ' .. connection .. ' ' .. said)
    end
  else
    redis.call('HSET', presence, connection, node .. ' ' .. said)
    redis.call('PEXPIRE', presence, UNPUBLISHED)
    if not was_own then
      redis.call('HINCRBY', own, channel, 1)
    end
    if operation == 'j' then
      announce(channel, 'j ' .. connection .. ' ' .. said)
    end
  end
end
return redis.status_reply('OK')
