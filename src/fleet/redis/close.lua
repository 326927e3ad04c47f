-- Records how long a backend is closed, and notifies the other processes if that is new.
-- KEYS[1]: what is closed, by field: until when, the service's own hint, and why.
-- ARGV: the channel; the field; for how many microseconds it is closed; the hint; why.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local closed, hint = tonumber(ARGV[3]), tonumber(ARGV[4])
local known = redis.call('HGET', KEYS[1], ARGV[2])
-- Requests that were refused together report nearly the same.
if known and tonumber(string.match(known, '^%d+')) + 20000 >= now + closed then return 0 end
redis.call('HSET', KEYS[1], ARGV[2], string.format('%.0f %.0f %s', now + closed, now + hint, ARGV[5]))
redis.call('PEXPIRE', KEYS[1], 86400000)
redis.call('PUBLISH', ARGV[1], string.format('%s %.0f %.0f %s', ARGV[2], closed, hint, ARGV[5]))
return 1
