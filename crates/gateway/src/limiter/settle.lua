-- What was taken turned out to be another amount: too much is given back where it was counted, too little is counted now.
-- KEYS: one hash a rule. ARGV: when it was taken in ms, the taken and the actual amount, then the span in ms of each rule.
local then_, taken, actual = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function whole(number) return string.format('%.0f', number) end
for rule = 1, #KEYS do
  local span = tonumber(ARGV[3 + rule])
  local length = math.floor(span / 60)
  if actual > taken then
    redis.call('HINCRBY', KEYS[rule], whole(math.floor(now / length)), whole(actual - taken))
    redis.call('PEXPIRE', KEYS[rule], whole(span + 2 * length))
  else
    local bucket = whole(math.floor(then_ / length))
    local count = tonumber(redis.call('HGET', KEYS[rule], bucket) or '0')
    local back = math.min(taken - actual, count)
    if back > 0 then redis.call('HINCRBY', KEYS[rule], bucket, whole(-back)) end
  end
end
return 1
