-- Keeps who holds ids; `fleet/ids.rs` is the same rule.
-- KEYS[1]: the beginning of the keys, which end with a generation and the first two bytes of an id's hash.
-- ARGV: the time in microseconds, for tests ('' is the server's); how long a generation lasts; then for each id its
-- hash, of ten bytes, and its holder. A holder with an owner has 24 bytes, of which the last eight are the owner's.
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local lasts = tonumber(ARGV[2])
local current = math.floor(now / lasts)
local holders = {}
for index = 3, #ARGV, 2 do
  local hash, holder = ARGV[index], ARGV[index + 1]
  local bucket, field = string.format(':%02x%02x', string.byte(hash, 1, 2)), string.sub(hash, 3)
  for generation = current, math.max(current - 4, 0), -1 do
    local kept = redis.call('HGET', KEYS[1] .. string.format(':%.0f', generation) .. bucket, field)
    if kept then
      -- The first owner keeps it.
      if #kept == 24 and string.sub(kept, 17) ~= string.sub(holder, 17) then holder = kept end
      break
    end
  end
  local key = KEYS[1] .. string.format(':%.0f', current) .. bucket
  redis.call('HSET', key, field, holder)
  redis.call('PEXPIRE', key, string.format('%.0f', math.ceil(((current + 5) * lasts - now) / 1000)))
  holders[#holders + 1] = holder
end
-- As it keeps them.
return holders
