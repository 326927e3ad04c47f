-- A process of the fleet reports that it lives, and counts those that do.
-- KEYS[1]: the processes by the time of their last report. ARGV: the id of this one, '' for none; for how
-- many microseconds a report counts.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if ARGV[1] ~= '' then redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[1]) end
local latest = string.format('%.0f', now - tonumber(ARGV[2]))
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', latest)) do redis.call('ZREM', KEYS[1], id) end
redis.call('PEXPIRE', KEYS[1], 60000)
return redis.call('ZCARD', KEYS[1])
