-- Makes leases last for another while.
-- KEYS: sorted sets, each as often as it has leases. ARGV: length in ms, then the lease's name for each key.
local time = redis.call('TIME')
local till = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[1]))
for i = 1, #KEYS do
  redis.call('ZADD', KEYS[i], till, ARGV[1 + i])
  redis.call('PEXPIRE', KEYS[i], ARGV[1])
end
return #KEYS
