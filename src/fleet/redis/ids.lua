-- `remember.lua` and `recall.lua` begin with this; `fleet/ids.rs` is the same rule.
-- KEYS[1]: the beginning of the keys, which end with a generation and the first two bytes of an id's hash.
-- ARGV: the time in microseconds, for tests ('' is the server's); how long a generation lasts; then the ids' hashes, of
-- ten bytes.
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local lasts = tonumber(ARGV[2])
local current = math.floor(now / lasts)
local function place(generation, hash)
  return KEYS[1] .. string.format(':%.0f:%02x%02x', generation, string.byte(hash, 1, 2)), string.sub(hash, 3)
end
-- The holder of an id, and the generation that has it.
local function find(hash)
  for generation = current, math.max(current - 4, 0), -1 do
    local holder = redis.call('HGET', place(generation, hash))
    if holder then return holder, generation end
  end
end
local function keep(hash, holder)
  local key, field = place(current, hash)
  redis.call('HSET', key, field, holder)
  redis.call('PEXPIRE', key, string.format('%.0f', math.ceil(((current + 5) * lasts - now) / 1000)))
end
