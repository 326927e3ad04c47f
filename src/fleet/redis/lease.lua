-- Takes requests out of a rate; `fleet/rate.rs` is the same rule.
-- KEYS[1]: when the rate's bucket will be full again, in microseconds.
-- ARGV: the time in microseconds, for tests ('' is the server's); requests per second; the most to take.
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local per_second, most = tonumber(ARGV[2]), tonumber(ARGV[3])
local interval = 1000000 / per_second
local latest = now + math.max(per_second, 1) * interval
-- A clock that was set back must not refuse for longer than the bucket takes to fill.
local full_at = math.min(math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now), latest)
local room = math.floor((latest - full_at) / interval + 0.000001)
if room < 1 then return {0, math.max(math.ceil(full_at + interval - latest), 1)} end
local granted = math.min(math.max(most, 1), room)
full_at = full_at + granted * interval
-- All digits of a double: the rules must not drift apart.
redis.call('SET', KEYS[1], string.format('%.17g', full_at), 'PX', string.format('%.0f', (full_at - now) / 1000 + 1000))
return {1, granted}
