-- List who is in a channel: connection and "TRANSPORT INFO" of each, of nodes that were heard of within ttl milliseconds.
local limit = now() - tonumber(ARGV[1]) * 1000
local lives = {}
local result = {}
local found = redis.call('HGETALL', key('presence', channel_of(KEYS[1])))
for index = 1, #found, 2 do
  local node, said = string.match(found[index + 1], '^(%S+) (.*)$')
  if lives[node] == nil then
    local heard = redis.call('ZSCORE', '@P@:nodes', node)
    lives[node] = heard and tonumber(heard) > limit or false
  end
  if lives[node] then
    result[#result + 1] = found[index]
    result[#result + 1] = said
  end
end
return result
