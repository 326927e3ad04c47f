-- The second half of `gate.lua`: the queue, and the steps of a call.

-- The queue. A member is its rank and its order with leading zeros, so that it sorts as text.

function f.member_of(rank, order) return string.format('%d:%016d', rank, order) end
function f.add(list, rank, cost)
  for index = #list + 1, rank + 1 do list[index] = 0 end
  list[rank + 1] = list[rank + 1] + cost
end
function f.take(rank, member, cost)
  if call('ZREM', QUEUE, member) == 1 then
    call('HDEL', WAITING, member)
    local queued = s.queued
    queued[rank + 1] = max((queued[rank + 1] or 0) - cost, 0)
  end
end
function f.behind(member) return call('ZLEXCOUNT', QUEUE, '-', '(' .. member) end
function f.purge()
  if abs(now - s.purged_at) < PURGE_INTERVAL then return end
  s.purged_at = now
  while true do
    local head = call('ZRANGE', QUEUE, 0, 0)[1]
    if not head then break end
    local cost, look = string.match(call('HGET', WAITING, head) or '0 0 0', '^(%S+) (%S+)')
    if tonumber(look) + MAX_LATENESS >= now then return end
    f.take(tonumber(string.sub(head, 1, 1)), head, tonumber(cost))
  end
  for index = 1, #s.queued do s.queued[index] = 0 end
end
function f.wait_without_expired(after, rank)
  if s.rate == 0 or call('ZCARD', QUEUE) > MAX_QUEUE_WALKED then return FOREVER end
  local queued = 0
  local members = call('ZRANGEBYLEX', QUEUE, '-', '(' .. (rank + 1))
  if #members > 0 then
    for _, waiting in ipairs(call('HMGET', WAITING, unpack(members))) do
      local cost, latest = string.match(waiting or '0 0 0', '^(%S+) %S+ (%S+)$')
      if after + f.wait_behind(after, queued) <= tonumber(latest) then queued = queued + tonumber(cost) end
    end
  end
  return f.predicted_wait(after, rank, queued)
end

-- Answers: `1 after order at admitted_before sent_after` goes, `2 after order predicted` waits,
-- `3 wait allowed cause` spills; each filled up to six numbers.

local out = {}
function f.answer(kind, a, b, c, d, e)
  local count = #out
  out[count + 1], out[count + 2], out[count + 3] = kind, a, b
  out[count + 4], out[count + 5], out[count + 6] = c or 0, d or 0, e or 0
end
local LATE, TOO_LONG, STANDING = 0, 1, 2
function f.spill(wait, allowed, budget)
  local cause = TOO_LONG
  if wait <= budget and interval > 0 and s.share < 1 then cause = STANDING end
  f.answer(3, floor(wait), floor(allowed), cause)
end
function f.go(at, rank, order, cost, lead)
  f.take(rank, f.member_of(rank, order), cost)
  at = math.ceil(at)
  local admitted_before, sent_after = f.on_sent(at, cost)
  f.answer(1, floor(max(at - now - lead, 0)), order, at, admitted_before, sent_after)
end
-- When the head of the queue looks again, if the request is behind it and lets it go first.
function f.head_looks_at(member)
  local head = call('ZRANGE', QUEUE, 0, 0)[1]
  if not head or head >= member then return nil end
  local look = tonumber(string.match(call('HGET', WAITING, head) or '0 0 0', '^%S+ (%S+)'))
  if look >= now - MAX_YIELD_LATENESS and look <= now + YIELD then return look end
end
function f.wait_at(look, rank, order, cost, ahead, latest, lead)
  local after = now + lead
  local soonest = after + lead + MIN_APPOINTMENT
  look = floor(min(max(look, soonest), max(latest, soonest)))
  local member = f.member_of(rank, order)
  if call('ZADD', QUEUE, '0', member) == 1 then f.add(s.queued, rank, cost) end
  call('HSET', WAITING, member, string.format('%d %d %d', cost, look, latest))
  f.answer(2, floor(look - after - lead), order, floor(f.predicted_wait(after, rank, ahead * s.mean)))
end
-- Decides what a request does now. It leaves the queue unless it keeps waiting.
function f.decide(rank, order, cost, is_patient, latest, lead)
  local after = now + lead
  local member = f.member_of(rank, order)
  local ahead = f.behind(member)
  local turn = f.due(ahead)
  if turn <= after + GRANT_AHEAD + 2 * lead and after <= latest then
    local look = ahead > 0 and f.head_looks_at(member)
    if look and look + lead <= latest then return f.wait_at(look, rank, order, cost, ahead, latest, lead) end
    return f.go(max(after, turn), rank, order, cost, lead)
  end
  if after >= latest or (is_patient and s.closed_until - f.one_way() > latest) then
    f.take(rank, member, cost)
    return f.answer(3, 0, 0, LATE)
  end
  if not is_patient and s.news_at > order then
    local wait = f.wait_behind(after, ahead * s.mean)
    if GIVE_UP_SHARE * wait > latest - after then
      f.take(rank, member, cost)
      return f.spill(wait, latest - after, latest - after)
    end
  end
  f.wait_at(after + APPOINTMENT_SHARE * (turn - after), rank, order, cost, ahead, latest, lead)
end

-- Steps.

local position = 6
local steps = {}
function f.argument()
  position = position + 1
  return tonumber(ARGV[position - 1])
end
function steps.E() -- enter: rank cost patient left lead
  local rank, cost, is_patient, left, lead = f.argument(), f.argument(), f.argument() == 1, f.argument(), f.argument()
  if s.below_at == NEVER then return f.answer(1, 0, 0, -1) end
  f.on_arrival(cost)
  local arriving = f.arriving_at(rank + 1, now)
  f.add(s.arriving, rank, 0)
  f.add(s.arrived_at, rank, 0)
  s.arriving[rank + 1], s.arrived_at[rank + 1] = arriving + cost / (ARRIVAL_WINDOW / SECOND), now
  local order = max(floor(now), s.last_order + 1)
  s.last_order = order
  local latest, after = f.latest_of(left, lead, is_patient), now + lead
  local head = call('ZRANGE', QUEUE, 0, 0)[1]
  local is_first = not head or f.member_of(rank, order) < head
  local goes = is_first and f.may_go(after)
  if not is_patient then
    local budget = max(latest - after, 0)
    local ahead = 0
    for index = 1, rank + 1 do ahead = ahead + (s.queued[index] or 0) end
    local wait = f.predicted_wait(after, rank, ahead)
    f.on_predicted(wait, budget)
    if not goes then
      local allowed = f.allowed_wait(budget, cost, not is_first)
      if not is_first then allowed = allowed / WAIT_SAFETY_FACTOR end
      if wait > allowed and f.wait_without_expired(after, rank) > allowed then
        return f.spill(wait, allowed, budget)
      end
    end
  end
  if goes then return f.go(after, rank, order, cost, lead) end
  f.decide(rank, order, cost, is_patient, latest, lead)
end
function steps.T() -- turn: rank order cost patient left lead
  local rank, order, cost, is_patient = f.argument(), f.argument(), f.argument(), f.argument() == 1
  local left, lead = f.argument(), f.argument()
  if s.below_at == NEVER then
    f.take(rank, f.member_of(rank, order), cost)
    return f.answer(1, 0, order, -1)
  end
  -- The store forgot what requests cost.
  if s.mean == 0 then f.on_arrival(cost) end
  f.decide(rank, order, cost, is_patient, f.latest_of(left, lead, is_patient), lead)
end
function steps.R() -- refused: rank order cost patient at admitted_before sent_after ago hint share left lead
  local rank, order, cost, is_patient = f.argument(), f.argument(), f.argument(), f.argument() == 1
  local at, _, sent_after, ago = f.argument(), f.argument(), f.argument(), f.argument()
  local hint, share, left, lead = f.argument(), f.argument(), f.argument(), f.argument()
  if share >= 0 and hint >= 0 then f.on_depth(share, hint) end
  local is_untracked = order < 0
  if is_untracked then
    at = now - lead - ago
    sent_after = s.sent
    f.on_untracked(at, cost)
    order = max(floor(at), 1)
    while call('ZSCORE', QUEUE, f.member_of(rank, order)) do order = order + 1 end
  end
  local reopens = f.on_refused(at, sent_after, ago, cost, hint, is_untracked, lead)
  local latest = f.latest_of(left, lead, is_patient)
  if is_patient then
    if reopens > latest then return f.answer(3, 0, 0, LATE) end
  else
    local after, ahead = now + lead, f.behind(f.member_of(rank, order))
    local budget = latest - after
    local allowed = budget
    if is_untracked then allowed = f.allowed_wait(max(budget, 0), cost, ahead > 0) end
    local wait = f.predicted_wait(after, rank, ahead * s.mean)
    if wait > allowed then return f.spill(wait, allowed, budget) end
  end
  f.decide(rank, order, cost, is_patient, latest, lead)
end
function steps.A() -- accepted: at admitted_before since share
  local at, admitted_before, since, share = f.argument(), f.argument(), f.argument(), f.argument()
  f.on_accepted(now - since, at, admitted_before, share)
end
function steps.F() -- finished: cost after actual
  local cost, after, actual = f.argument(), f.argument(), f.argument()
  f.on_ended(cost, after, actual)
end
function steps.G() -- gone: at cost
  local at, cost = f.argument(), f.argument()
  f.on_cancelled(at, cost)
end
function steps.L() -- leave: rank order cost
  local rank, order, cost = f.argument(), f.argument(), f.argument()
  f.take(rank, f.member_of(rank, order), cost)
end

f.purge()
-- A process that died never reports the end of its attempts.
s.in_flight = s.in_flight * (1 - min(max(now - s.decayed_at, 0) / IN_FLIGHT_DECAY, 1))
s.decayed_at = now
if s.below_at ~= NEVER then
  local silent_for = now - s.known_at
  if ((s.below_at - now < -IDLE_AFTER and silent_for > IDLE_AFTER + s.usual) or silent_for > FORGOTTEN_AFTER)
    and call('EXISTS', QUEUE) == 0 then
    s.below_at, s.doubt_at, s.sample_at = NEVER, NEVER, NEVER
    if s.idle_since == NEVER then s.idle_since = now end
  end
end
while ARGV[position] do
  local step = steps[ARGV[position]]
  if not step then return redis.error_reply('spillover: unknown step ' .. ARGV[position]) end
  position = position + 1
  step()
end
local closed, busy, waiting = NEVER, -1, -1
if s.below_at ~= NEVER then
  closed = floor(s.below_at - now)
  if abs(now - s.said_at) > NEWS_INTERVAL then
    s.said_at = now
    busy = floor(max(s.below_at - now, 0) + BUSY_MARGIN)
    waiting = call('ZCARD', QUEUE)
    call('PUBLISH', ARGV[2], string.format('%d', busy))
    -- Longer than any request waits between two calls.
    call('PEXPIRE', QUEUE, '3600000')
    call('PEXPIRE', WAITING, '3600000')
  end
end
call('SET', STATE, cmsgpack.pack(s), 'PX', '86400000')
local count = #out
out[count + 1], out[count + 2], out[count + 3] = closed, floor(s.rate * 1000), waiting
out[count + 4] = busy
return out
