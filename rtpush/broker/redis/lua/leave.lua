-- A node ends: nobody waits for it any more, and its connections are gone.
local node = ARGV[1]
redis.call('ZREM', '@P@:nodes', node)
redis.call('HDEL', '@P@:statuses', node)
if redis.call('EXISTS', '@P@:present:' .. node) == 1 then
  redis.call('SADD', '@P@:graves', node)
end
return redis.status_reply('OK')
