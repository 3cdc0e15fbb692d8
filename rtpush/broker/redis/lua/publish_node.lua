-- What nodes call: everything has been checked.
local number = tonumber
return publish(
  channel_of(KEYS[1]), ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5] == '1',
  number(ARGV[6]), number(ARGV[7]), number(ARGV[8]), number(ARGV[9]), ARGV[10]
)
