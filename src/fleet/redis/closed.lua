-- What is closed, as messages like those of `close.lua`. KEYS[1]: as there.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local closed, all = {}, redis.call('HGETALL', KEYS[1])
for index = 1, #all, 2 do
  local till, hint, why = string.match(all[index + 1], '^(%d+) (%d+) (%d+)$')
  if till and tonumber(till) > now then
    closed[#closed + 1] = string.format('%s %.0f %.0f %s', all[index], till - now, math.max(hint - now, 0), why)
  else
    redis.call('HDEL', KEYS[1], all[index])
  end
end
return closed
