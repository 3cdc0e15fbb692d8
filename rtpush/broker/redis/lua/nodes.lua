-- Tell the nodes that were heard of within ttl milliseconds: node, status, and how many milliseconds ago that was.
local at = now()
local heard = redis.call('ZRANGEBYSCORE', '@P@:nodes', integer(at - tonumber(ARGV[1]) * 1000), '+inf', 'WITHSCORES')
local result = {}
for index = 1, #heard, 2 do
  result[#result + 1] = heard[index]
  result[#result + 1] = redis.call('HGET', '@P@:statuses', heard[index]) or '{}'
  result[#result + 1] = integer((at - tonumber(heard[index + 1])) / 1000)
end
return result
