-- The core of a fleet's gate, in the store: the same rules as `src/fleet/core`, statement by statement.
-- A differential test demands equal answers, so change both. `gate_steps.lua` follows it.
--
-- KEYS[1]: what is known of one PTU. KEYS[2]: who waits, `rank:order` in order. KEYS[3]: of those, cost,
-- appointment and latest dispatch.
-- ARGV[1]: the time in microseconds, for tests; empty is the server's. ARGV[2]: the channel on which the
-- fleet learns that the PTU is busy. ARGV[3]: how long a queue may stand, 0 never cuts it. ARGV[4],
-- ARGV[5]: the last answer to the caller, in case the store lost its data: for how long the PTU stays
-- closed, and its rate; a rate of 0 when it knows nothing.
-- Then steps: a letter and its arguments. Durations are in microseconds, costs in weighted tokens,
-- rates in weighted tokens per second. -1 stands for what is not known.
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local interval = tonumber(ARGV[3])
local call, floor, max, min, abs, exp, sqrt =
  redis.call, math.floor, math.max, math.min, math.abs, math.exp, math.sqrt
local STATE, QUEUE, WAITING = KEYS[1], KEYS[2], KEYS[3]
-- Names in capitals that are not declared here are constants of the core, whose values the loader writes.
--
-- What is stored. The loader writes the position for the name: `s.rate` becomes `s[2]`, because a
-- table with names would have to be built twice in each call.
-- fields:
-- below_at rate rate_cost rate_time sample_at sample_excess sample_admitted settled_at
-- is_provisional mean estimated actual answers squared product in_flight decayed_at answer_time admitted sent last_hint
-- repeats doubt_at doubt_reopens confirmed refuted longest_hint is_hinted silent_since early_at
-- window first_sent last_sent refused_at known_at closed_until is_explained network usual slowest
-- refusals admitted_at depth_hints depth_shares depth_error share emptied_at change_at idle_since
-- news_at last_order said_at purged_at queued arriving arrived_at
-- end
local stored = call('GET', STATE)
local s
if stored then
  s = cmsgpack.unpack(stored)
else
  s = {}
  for field = 1, 56 do s[field] = 0 end
  s.below_at, s.sample_at, s.settled_at, s.last_hint, s.doubt_at = NEVER, NEVER, NEVER, NEVER, NEVER
  s.silent_since, s.early_at, s.first_sent, s.last_sent = NEVER, NEVER, NEVER, NEVER
  s.refused_at, s.known_at, s.closed_until, s.admitted_at = NEVER, NEVER, NEVER, NEVER
  s.news_at, s.said_at, s.purged_at = NEVER, NEVER, NEVER
  s.decayed_at, s.emptied_at, s.change_at, s.idle_since = now, now, now, now
  s.confirmed, s.refuted, s.window, s.share = 0.5, 0.5, 1, 1
  s.is_provisional, s.is_hinted, s.is_explained = true, false, false
  s.queued, s.arriving, s.arrived_at = {}, {}, {}
  call('DEL', QUEUE, WAITING)
  local rate = tonumber(ARGV[5])
  if rate > 0 then
    s.below_at = now + tonumber(ARGV[4])
    s.rate, s.rate_time, s.rate_cost, s.is_provisional = rate, SEED_TIME_S, rate * SEED_TIME_S, false
    s.refused_at, s.known_at, s.closed_until, s.admitted_at = now, now, s.below_at, now
  end
end

-- Functions are in a table: as locals, each would have to be captured by all others, in each call.
local f = {}

-- The bucket.

function f.drain_time(cost)
  if s.rate > 0 then return cost / s.rate * SECOND end
  return 0
end
function f.ratio()
  if s.estimated > 0 then return s.actual / s.estimated end
  return 1
end
function f.fill_time()
  if s.rate > 0 then return f.ratio() * s.mean / s.rate * SECOND end
  return UNKNOWN_FILL
end
function f.one_way() return s.network / 2 end
function f.silence() return max(s.usual * SILENCE_TRIPS, MIN_SILENCE) end
function f.is_silent(at) return s.first_sent ~= NEVER and at >= s.first_sent + f.silence() end
function f.sendable_at() return s.below_at - f.one_way() + DISPATCH_MARGIN end
function f.drought(at)
  if s.is_hinted or s.refusals < MIN_REFUSALS then return 0 end
  local dry = at - s.admitted_at
  if dry > max(MIN_DROUGHT, MIN_DROUGHT_FILLS * f.fill_time()) then return dry end
  return 0
end

function f.on_arrival(cost)
  if s.mean == 0 then s.mean = cost else s.mean = s.mean + MEAN_WEIGHT * (cost - s.mean) end
end
function f.fade()
  if s.confirmed + s.refuted > MAX_REMEMBERED then
    s.confirmed = s.confirmed * FADE_FACTOR
    s.refuted = s.refuted * FADE_FACTOR
  end
end
function f.on_known(at)
  if s.silent_since == at then s.silent_since = NEVER end
end
function f.on_admitted(at, sent_at)
  if sent_at > s.refused_at then s.refusals = 0 end
  s.admitted_at = max(s.admitted_at, sent_at)
  if sent_at >= s.known_at then s.closed_until = min(s.closed_until, sent_at + f.one_way()) end
  if s.refusals == 0 and s.doubt_at ~= NEVER then
    if s.doubt_reopens > at + MIN_REFUTED then s.refuted = s.refuted + 1 end
    s.doubt_at = NEVER
    f.fade()
  end
end
function f.probe(at)
  local gap = f.silence() / s.window
  local is_below = false
  if s.early_at ~= NEVER then
    if at >= s.early_at + gap then
      is_below = true
      s.early_at = at
      s.window = min(s.window + 1, MAX_WINDOW)
    end
  elseif at < f.sendable_at() then
    s.early_at = at
  elseif s.rate == 0 and s.first_sent ~= NEVER and at >= s.silent_since + gap then
    s.window = min(s.window + 1, MAX_UNMODELLED_WINDOW)
  end
  if s.first_sent == NEVER then s.first_sent = at end
  s.last_sent = at
  s.silent_since = at
  return is_below
end
function f.on_sent(at, cost)
  if f.is_silent(at) then f.on_admitted(at, s.first_sent) end
  s.sent = s.sent + cost
  local admitted_before, sent_after = s.admitted, s.sent
  s.admitted = s.admitted + cost
  s.in_flight = s.in_flight + cost
  local is_below = f.probe(at)
  if s.below_at ~= NEVER then
    local below = s.below_at
    if is_below then below = min(below, at + f.one_way()) end
    s.below_at = max(below, at - MAX_MODELLED_SPARE) + f.drain_time(cost)
  end
  return admitted_before, sent_after
end
function f.shift(cost)
  local time = f.drain_time(cost)
  if s.below_at ~= NEVER then s.below_at = s.below_at + time end
  return time
end
function f.uncount(cost)
  s.admitted = s.admitted - cost
  s.in_flight = max(s.in_flight - cost, 0)
end
function f.give_back(cost)
  f.uncount(cost)
  f.shift(-cost)
end
function f.on_latency(network, known)
  local near, took = min(max(network, 0), MAX_NETWORK), max(known, 0)
  if s.network == 0 then s.network = near else s.network = min(near, s.network + s.network / NETWORK_GROWTH_DIVISOR) end
  if s.usual == 0 then s.usual = took else s.usual = s.usual + (took - s.usual) / USUAL_DIVISOR end
  s.slowest = max(took, s.slowest - (s.slowest - took) / LONGEST_DECAY_DIVISOR)
end
function f.on_hint(hint)
  local repeats = 0
  if hint > MIN_REPEATED and abs(hint - s.last_hint) <= MILLISECOND then repeats = 1 end
  s.repeats = s.repeats + REPEATS_WEIGHT * (repeats - s.repeats)
  s.last_hint = hint
end
-- Whether to believe a hint. If not, it is doubted from now on.
function f.believe(decided, hint, reopens)
  local expected, fill = 0, UNKNOWN_FILL
  if s.below_at ~= NEVER then expected = max(s.below_at - decided, 0) end
  if s.rate > 0 then fill = f.drain_time(s.mean) end
  if hint <= max(DOUBT_FACTOR * (expected + fill), MIN_DOUBTED) then
    s.doubt_at = NEVER
    return true
  end
  if s.refuted < MAX_REFUTED_RATIO * s.confirmed and hint <= CREDIBLE_FACTOR * s.longest_hint then
    s.doubt_at = NEVER
    return true
  end
  if s.doubt_at ~= NEVER then
    local apart = decided - s.doubt_at
    local blur = min(fill, MAX_BLUR)
    if abs(reopens - s.doubt_reopens) <= MAX_DRIFT * apart + blur then
      if apart < max(MIN_CONFIRMATION, 2 * blur) then return false end
      s.confirmed = s.confirmed + 1
      s.longest_hint = max(LONGEST_HINT_DECAY * s.longest_hint, s.doubt_reopens - s.doubt_at)
      s.doubt_at = NEVER
      f.fade()
      return true
    end
  end
  s.doubt_at, s.doubt_reopens = decided, reopens
  return false
end
-- Measures the drain rate at a refusal.
function f.measure(at, excess, admitted)
  local is_settling = at < s.settled_at
  if is_settling and not s.is_provisional then return end
  if s.sample_at == NEVER then
    s.sample_at, s.sample_excess, s.sample_admitted = at, excess, admitted
    return
  end
  local cost = admitted - s.sample_admitted
  local time = (at - s.sample_at) / SECOND
  local drained = time + (excess - s.sample_excess) / SECOND
  local is_first = s.rate_time == 0 and cost > 0
  if (time < MIN_INTERVAL_S and not is_first) or drained < MIN_DRAIN_S then return end
  s.sample_at, s.sample_excess, s.sample_admitted = at, excess, admitted
  if s.is_provisional and not is_settling then
    s.rate_cost, s.rate_time, s.is_provisional = 0, 0, false
  end
  local kept = exp(-drained / RATE_SAMPLE_WINDOW_S)
  s.rate_cost = kept * s.rate_cost + cost
  s.rate_time = kept * s.rate_time + drained
  if s.rate_cost > 0 then s.rate = s.rate_cost / s.rate_time end
end
function f.guess()
  local time = GUESS_FILLS * f.fill_time()
  local doublings = min(s.refusals - 1, MAX_GUESS_DOUBLINGS)
  while doublings > 0 do
    time = time * 2
    doublings = doublings - 1
  end
  return min(max(time, f.silence()), MAX_GUESS)
end
function f.on_untracked(sent_at, cost)
  f.on_arrival(cost)
  s.first_sent = NEVER
  if s.below_at == NEVER then
    s.settled_at = sent_at + SETTLING
    s.refusals = 0
    s.admitted_at = sent_at
  end
end
-- An attempt was refused. Returns when the PTU reopens.
function f.on_refused(at, sent_after, ago, cost, hint, is_untracked, lead)
  f.on_latency(ago, now - at)
  local arrived = min(at + f.one_way(), now - lead)
  if s.below_at ~= NEVER and arrived < s.refused_at then
    if not is_untracked then f.uncount(cost) end
    return s.below_at
  end
  if not is_untracked then f.give_back(cost) end
  local later = max(s.sent - sent_after, 0)
  local is_news = at >= s.known_at
  if is_news and hint >= 0 then f.on_hint(hint) end
  if s.repeats >= MIN_CONSTANT_SHARE then hint = -1 end
  if is_news and f.is_silent(now) and s.first_sent < at then f.on_admitted(now, s.first_sent) end
  local is_early = arrived + MILLISECOND < s.closed_until
  local excess, err, reopens = 0, nil, 0
  s.is_hinted = false
  if hint >= 0 then
    local opens = arrived + hint + f.drain_time(later)
    if s.rate == 0 or f.believe(arrived, hint, opens) then
      if s.below_at ~= NEVER and not is_untracked then err = abs(opens - s.below_at) end
      s.is_hinted = true
      excess, reopens = hint, opens
    end
  end
  if f.drought(now) > 0 then s.sample_at = NEVER else f.measure(arrived, excess, s.admitted - later) end
  s.is_explained = err ~= nil and err <= EXPLAINED_SHARE * excess + EXPLAINED
  s.closed_until = arrived + excess
  s.refused_at, s.known_at, s.first_sent, s.window, s.early_at = arrived, now, NEVER, 1, NEVER
  if is_news and not (is_early and s.is_explained) then s.refusals = s.refusals + 1 end
  if not s.is_hinted then reopens = arrived + f.guess() end
  if s.below_at == NEVER or reopens - s.below_at > MIN_NEWS then s.news_at = now end
  s.below_at = reopens
  return reopens
end
function f.on_accepted(began, at, admitted_before, share)
  f.on_known(at)
  f.on_admitted(began, at)
  if share < 0 or s.below_at == NEVER or s.depth_shares < MIN_SHARE_SUM or s.depth_error >= MAX_TRUSTED_DEVIATION or s.rate == 0 then
    return
  end
  local over = (share - 1) * (s.depth_hints / s.depth_shares) * SECOND
  local since = f.drain_time(s.admitted - admitted_before)
  local before = at + f.one_way() + over + since
  local answering = began - f.one_way() + over
  local slack = f.one_way() + (began - at) / UTILIZATION_AGE_DIVISOR
  s.below_at = min(s.below_at, max(before, answering) + slack)
end
function f.on_cancelled(at, cost)
  f.on_known(at)
  if s.first_sent == at then s.first_sent = NEVER end
  if s.early_at == at then s.early_at = NEVER end
  f.give_back(cost)
end
function f.on_ended(cost, after, actual)
  s.in_flight = max(s.in_flight - cost, 0)
  if s.answer_time == 0 then
    s.answer_time = after
  else
    s.answer_time = s.answer_time + DURATION_WEIGHT * (after - s.answer_time)
  end
  if actual >= 0 then
    s.estimated = SUM_DECAY * s.estimated + cost
    s.actual = SUM_DECAY * s.actual + actual
    s.answers = SUM_DECAY * s.answers + 1
    s.squared = SUM_DECAY * s.squared + cost * cost
    s.product = SUM_DECAY * s.product + cost * actual
    s.admitted = s.admitted + (actual - cost)
    local later = f.shift(actual - cost)
    if later < 0 then s.closed_until = s.closed_until + later end
  end
end
function f.on_depth(share, hint)
  local over = share - 1
  hint = hint / SECOND
  if over <= 0 or hint <= 0 then return end
  if s.depth_shares >= MIN_SHARE_SUM then
    local depth = s.depth_hints / s.depth_shares
    local off = max(abs(hint - over * depth) - UTILIZATION_ROUNDING * depth, 0)
    s.depth_error = s.depth_error + DEVIATION_WEIGHT * (min(off / hint, 1) - s.depth_error)
  end
  s.depth_hints = SUM_DECAY_PER_REFUSAL * s.depth_hints + hint
  s.depth_shares = SUM_DECAY_PER_REFUSAL * s.depth_shares + over
end

-- When to make the next attempt, for the request with `ahead` others ahead of it.
function f.due(ahead)
  if s.below_at == NEVER then return NEVER end
  local gap = f.silence() / s.window
  local by_model = f.sendable_at()
  if s.rate > 0 then
    by_model = by_model + ahead * f.fill_time()
  else
    if s.first_sent ~= NEVER then by_model = max(by_model, s.silent_since + gap) end
    by_model = by_model + ahead * gap
  end
  local early
  if s.early_at == NEVER then
    early = s.refused_at + max(CHECK_AND_TRIP - s.network, MIN_CHECK)
  else
    early = s.early_at + gap
  end
  return min(by_model, early + ahead * gap)
end
function f.is_surely_closed(at)
  local closed_until = min(s.closed_until - f.one_way(), f.sendable_at())
  return s.below_at ~= NEVER and s.is_explained and at < closed_until
end
function f.may_go(after)
  return (f.due(0) <= after and not f.is_surely_closed(after))
    or after - max(s.refused_at, s.last_sent) >= BYPASS_AFTER
end
function f.latest_of(left, lead, is_patient)
  local deadline = floor(now - lead + left)
  if is_patient then return deadline end
  return floor(deadline - max(s.slowest * RESERVE_MARGIN, s.network * SILENCE_TRIPS))
end

-- Predictions.

function f.drained_after(closed, queued)
  queued = f.drain_time(queued)
  local ratio, duration = f.ratio(), s.answer_time
  if duration <= 0 then return closed + ratio * queued end
  local given_back = max((1 - ratio) * f.drain_time(s.in_flight), 0)
  local sooner = (closed + queued) / (1 + given_back / duration)
  if sooner <= duration then return sooner end
  local b = closed - given_back + ratio * queued
  local c = (1 - ratio) * duration * queued
  return max(0.5 * (b + sqrt(max(b * b + 4 * c, 0))), 0)
end
function f.wait_behind(at, queued)
  if s.below_at == NEVER then return 0 end
  local wait = max(f.sendable_at() - at, 0)
  if s.rate > 0 then wait = f.drained_after(wait, queued) end
  return max(wait, f.drought(at))
end
function f.arriving_at(index, at)
  if (s.arriving[index] or 0) == 0 then return 0 end
  return s.arriving[index] * exp(-max(at - s.arrived_at[index], 0) / ARRIVAL_WINDOW)
end
function f.predicted_wait(at, rank, queued)
  local urgent = 0
  for index = 1, rank do urgent = urgent + f.arriving_at(index, at) end
  local share = 0
  if s.rate > 0 then share = min(f.ratio() * urgent / s.rate, MAX_URGENT_SHARE) end
  return f.wait_behind(at, queued) / (1 - share)
end
function f.relative_cost(cost, size)
  local spread = s.answers * s.squared - s.estimated * s.estimated
  if spread <= MIN_SPREAD * s.estimated * s.estimated then return size end
  local slope = max((s.answers * s.product - s.estimated * s.actual) / spread, 0)
  local base = (s.actual - slope * s.estimated) / s.answers
  local mean = base + slope * s.mean
  if mean > 0 then return max((base + slope * cost) / mean, MIN_RELATIVE_COST) end
  return size
end
function f.worth(cost)
  local size = 1
  if s.mean > 0 then size = cost / s.mean end
  size = max(size, MIN_RELATIVE_COST)
  return f.relative_cost(cost, size) / sqrt(size)
end
function f.allowed_wait(budget, cost, is_behind)
  if interval == 0 or not is_behind then return budget end
  local shared = min(budget, max(budget * s.share, 2 * TARGET))
  return min(shared * max(f.worth(cost), MIN_SIZE_SHARE), budget)
end
function f.on_predicted(wait, budget)
  if interval == 0 then return end
  local longest = max(interval, INTERVAL_WAITS * budget)
  if s.idle_since ~= NEVER then
    local idle = min((now - s.idle_since) / SECOND, MAX_IDLE_S)
    s.share = min(s.share * exp(LN_IDLE_GROWTH_PER_S * idle), 1)
    s.idle_since = NEVER
    s.emptied_at = now
  end
  if wait <= max(TARGET, TARGET_SHARE * budget) then
    s.emptied_at = now
    if now >= s.change_at then
      s.share = min(s.share * GROWTH_PER_INTERVAL, 1)
      s.change_at = now + longest
    end
    return
  end
  local stands_for = max(longest * s.share, CUT_INTERVAL)
  if now - s.emptied_at >= stands_for and now >= s.change_at then
    s.share = max(s.share * CUT_FACTOR, MIN_SHARE)
    s.change_at = now + CUT_INTERVAL
  end
end
