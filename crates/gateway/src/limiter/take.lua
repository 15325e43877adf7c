-- Takes a cost under all rules, or nothing: the sliding window of window.rs, in hashes of bucket -> count.
-- KEYS: one hash a rule. ARGV: now in ms (0: Redis' own clock), cost, then limit and span in ms of each rule.
-- Gives {1, now, used and ms until the reset of each rule ...} or {0, now, number of the rule, used, reset, wait (-1: never)}.
local now, cost = tonumber(ARGV[1]), tonumber(ARGV[2])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local function whole(number) return string.format('%.0f', number) end
local used = {}
for rule = 1, #KEYS do
  local limit, length = tonumber(ARGV[1 + 2 * rule]), math.floor(tonumber(ARGV[2 + 2 * rule]) / 60)
  local bucket = math.floor(now / length)
  local sum, live, entries = 0, {}, redis.call('HGETALL', KEYS[rule])
  for i = 1, #entries, 2 do
    local at, count = tonumber(entries[i]), tonumber(entries[i + 1])
    if at < bucket - 60 then
      redis.call('HDEL', KEYS[rule], entries[i])
    elseif count > 0 then
      sum = sum + count
      live[#live + 1] = { at, count }
    end
  end
  if sum + cost > limit then
    table.sort(live, function(a, b) return a[1] < b[1] end)
    local over, wait, reset = sum + cost - limit, -1, 0
    for _, entry in ipairs(live) do
      over = over - entry[2]
      reset = (entry[1] + 61) * length - now
      if over <= 0 and wait < 0 and cost <= limit then wait = reset end
    end
    return { 0, now, rule, sum, reset, wait }
  end
  used[rule] = sum
end
local answer = { 1, now }
for rule = 1, #KEYS do
  local span = tonumber(ARGV[2 + 2 * rule])
  local length = math.floor(span / 60)
  local bucket = math.floor(now / length)
  redis.call('HINCRBY', KEYS[rule], whole(bucket), whole(cost))
  redis.call('PEXPIRE', KEYS[rule], whole(span + 2 * length))
  answer[#answer + 1] = used[rule] + cost
  answer[#answer + 1] = (bucket + 61) * length - now
end
return answer
