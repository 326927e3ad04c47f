-- Changes what was used of a budget, if its window is still the same one.
-- KEYS[1]: the budget, as in `take.lua`. ARGV: the window; the change.
if redis.call('HGET', KEYS[1], 'o') ~= ARGV[1] then return 0 end
local used = tonumber(redis.call('HGET', KEYS[1], 'u') or 0) + tonumber(ARGV[2])
redis.call('HSET', KEYS[1], 'u', string.format('%.0f', math.min(math.max(used, 0), 9007199254740991)))
return 1
