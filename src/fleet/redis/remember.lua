-- Keeps who holds the ids: each hash is followed by a holder. One with an owner has 24 bytes, of which the last eight are
-- the owner's.
local holders = {}
for index = 3, #ARGV, 2 do
  local hash, holder = ARGV[index], ARGV[index + 1]
  local kept = find(hash)
  -- The first owner keeps it.
  if kept and #kept == 24 and string.sub(kept, 17) ~= string.sub(holder, 17) then holder = kept end
  keep(hash, holder)
  holders[#holders + 1] = holder
end
-- As it keeps them.
return holders
