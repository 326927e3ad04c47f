-- Who holds the ids.
local holders = {}
for index = 3, #ARGV do
  local hash = ARGV[index]
  local holder, generation = find(hash)
  -- It is in use.
  if holder and generation < current then keep(hash, holder) end
  holders[#holders + 1] = holder or ''
end
return holders
