-- Tell the newest positions of channels to one who follows them, and keep what is kept of those.
-- After the salt and the milliseconds that positions are kept: channel, and the epoch, offset and time that are known.
local salt, ttl = ARGV[1], tonumber(ARGV[2])
local at = now()
local result = {}
for index = 3, #ARGV, 4 do
  local channel = ARGV[index]
  local look = ARGV[index + 1] == '' and newest or verified
  local done, epoch, offset, time = pcall(look, channel, at, salt, ARGV[index + 1], ARGV[index + 2], ARGV[index + 3])
  if done then
    redis.call('PEXPIRE', key('position', channel), offset > 0 and math.max(ttl, UNPUBLISHED) or UNPUBLISHED)
    redis.call('PEXPIRE', key('presence', channel), UNPUBLISHED)
  else
    -- A full Redis takes no new position; for the others there is an answer all the same.
    epoch, offset, time = '', 0, 0
  end
  result[#result + 1] = epoch
  result[#result + 1] = integer(offset)
  result[#result + 1] = integer(time)
end
return result
