-- A node lives: note it with its status, and send the probe to its inbox. Return whether it was known to live before,
-- then the nodes that are dead and still to be buried.
--
-- @P@:nodes is a sorted set: node -> when it was heard of; @P@:statuses a hash: node -> status;
-- @P@:graves a set of the dead who still have connections in channels.
local node, status, ttl, inbox, probe = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local at = now()
redis.call('PUBLISH', inbox, probe)
local known = redis.call('ZSCORE', '@P@:nodes', node)
local noted = redis.pcall('ZADD', '@P@:nodes', integer(at), node)
if type(noted) == 'table' and noted.err then
  if string.find(noted.err, 'OOM', 1, true) then
    -- Redis is full: nobody can say who lives, so nobody is buried.
    return { 1 }
  end
  return noted
end
redis.call('HSET', '@P@:statuses', node, status)
redis.call('PEXPIRE', '@P@:present:' .. node, 3600000)
for _, dead in ipairs(redis.call('ZRANGEBYSCORE', '@P@:nodes', '-inf', integer(at - ttl * 1000))) do
  redis.call('ZREM', '@P@:nodes', dead)
  redis.call('HDEL', '@P@:statuses', dead)
  redis.call('SADD', '@P@:graves', dead)
end
return { known and 1 or 0, unpack(redis.call('SRANDMEMBER', '@P@:graves', 10)) }
