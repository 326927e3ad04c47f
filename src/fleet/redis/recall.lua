-- Who holds ids; `fleet/ids.rs` is the same rule. KEYS and ARGV are those of `remember.lua`, without holders.
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local lasts = tonumber(ARGV[2])
local current = math.floor(now / lasts)
local holders = {}
for index = 3, #ARGV do
  local hash = ARGV[index]
  local bucket, field = string.format(':%02x%02x', string.byte(hash, 1, 2)), string.sub(hash, 3)
  local holder = ''
  for generation = current, math.max(current - 4, 0), -1 do
    local kept = redis.call('HGET', KEYS[1] .. string.format(':%.0f', generation) .. bucket, field)
    if kept then
      holder = kept
      if generation < current then
        -- It is in use.
        local key = KEYS[1] .. string.format(':%.0f', current) .. bucket
        redis.call('HSET', key, field, holder)
        redis.call('PEXPIRE', key, string.format('%.0f', math.ceil(((current + 5) * lasts - now) / 1000)))
      end
      break
    end
  end
  holders[#holders + 1] = holder
end
return holders
