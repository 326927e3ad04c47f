-- Takes something out of a budget; `fleet/budget.rs` is the same rule.
-- KEYS[1]: the budget: `o`, when its window was opened, which identifies it, and `u`, what was used.
-- ARGV: the time in microseconds, for tests ('' is the server's); the limit; the window in microseconds; the amount.
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local limit, window, amount = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local opened = tonumber(redis.call('HGET', KEYS[1], 'o') or 0)
local used = tonumber(redis.call('HGET', KEYS[1], 'u') or 0)
-- A clock that was set back must not keep a window open for longer than it lasts.
if opened == 0 or opened > now or now - opened >= window then
  if limit == 0 then return {0, 0, 0, window} end
  opened, used = now, 0
end
local closes_in = opened + window - now
if used >= limit then return {0, 0, 0, closes_in} end
used = math.min(used + amount, 9007199254740991)
-- Lua writes numbers with 14 digits otherwise.
redis.call('HSET', KEYS[1], 'o', string.format('%.0f', opened), 'u', string.format('%.0f', used))
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.floor(closes_in / 1000) + 1000))
return {1, opened, math.max(limit - used, 0), closes_in}
