//! The pure core of the gate: facts and the time go in, decisions come out.
//!
//! Nothing here reads a clock, draws random numbers, locks, sleeps or knows HTTP. Every method takes
//! `now`, and a refusal brings its random draw. The edge around the core (`gate/mod.rs`,
//! `gate/waiter.rs`) owns the mutex, the timer and the futures.
//!
//! # What a PTU does
//!
//! A PTU deployment is a leaky bucket. A request adds its estimated cost to the level. The level
//! drains at a constant rate, set by the number of PTUs. When the answer ends, the service replaces
//! the estimate with the actual cost. A request that arrives while the level is above 100 % is
//! refused with 429 and `retry-after-ms`, the time until the level is below 100 % again. On a busy
//! deployment that is tens of milliseconds: the bucket admits about one request each time it opens.
//!
//! PTU capacity is paid for whether it is used or not; the alternative, a Standard deployment, is
//! paid for by the token. So the gate has two aims. The PTU must not idle while a request waits for
//! it. And a request that the PTU will not serve in time must spill immediately, not after its
//! `max_wait`.
//!
//! # What can go wrong
//!
//! None of these inputs is reliable. Estimates are off by a factor of ten, because callers set
//! `max_tokens` far above what they use, or omit it. Answers take a minute. Other clients fill the
//! same PTU. Hints are rounded, missing, constant, too short, or false. Refusals take seconds. A
//! deployment is resized, or disappears for minutes. So the gate uses each fact only for what it
//! proves, and checks every conclusion.
//!
//! # Drain rate: a quotient of sums
//!
//! Two refusals, with the cost admitted in between, give the drain rate:
//! `cost / (time + hint2 - hint1)`. `drain_rate.rs` divides sums over the last seconds rather than
//! averaging quotients, so an error at the end of one interval cancels at the start of the next. This
//! works without hints, too. When others fill the same PTU, it measures the share that they leave.
//!
//! # Reopening: the model
//!
//! `bucket.rs` keeps one number: the instant at which the level falls below 100 %. A refusal sets it,
//! an attempt moves it later by `cost / rate`, and an answer that cost less than estimated moves it
//! earlier. Costs are in weighted tokens; the unit cancels out, because the rate is measured in the
//! same one. `bucket_depth.rs` learns how utilisation headers relate to hints, so that the header on
//! a successful answer can lower the modelled level, too.
//!
//! # What a hint proves
//!
//! `hints.rs` believes a hint that fits the model or is not much longer than one request takes to
//! drain. It doubts a longer one: the gate probes when the model expects the PTU to reopen, and then
//! at doubling intervals, until a second hint that points to the same instant confirms the first, or
//! an admission refutes it. A hint that never changes counts as no hint. Without a hint, the gate
//! tries again after half the time that one request takes to drain, doubling up to half a second.
//!
//! # Probing: at most half a second without an attempt
//!
//! A model that is too low corrects itself: the next request is refused. A model that is too high
//! would never show, because a request that is sent too late is not refused. A hint does not replace
//! the check, even if it fits the model: it does not include what answers will give back. So while
//! requests wait, `prober.rs` makes an attempt a third of a second after the last refusal, ahead of
//! the model and of the hint. A refusal comes back within one round trip, an answer takes seconds, so
//! silence for a little longer counts as an admission: by four mean deviations of that time, and at
//! most by half of it. Then the model was too high, and further attempts follow faster and faster
//! until one is refused. While no request waits, one
//! arriving request per second is sent as a probe.
//!
//! `queue.rs` orders waiting requests by rank, then by arrival. Only the head is dispatched, half a
//! round trip ahead, so that it arrives just as the level falls below 100 %. A refused request
//! returns to its old place. So nothing is overtaken, and at saturation each opening of the bucket
//! meets one attempt instead of a crowd. Only a request that has made eight attempts within four
//! seconds lets the next one go first, or gives up.
//!
//! # Prediction: wait or spill
//!
//! The wait of an arriving request is predicted: the time until the level is below 100 %, plus the
//! cost ahead of it in the queue divided by the rate, less what answers in flight will give back by
//! then (`costs.rs`), and more if more urgent requests are expected (`arrivals.rs`). If the
//! prediction exceeds what is left of its `max_wait`, the request spills immediately
//! (`admission.rs`). So does a refused request that returns to the queue, and a waiting one when a
//! refusal shows that its turn will come far too late. Part of `max_wait` is held in reserve for one
//! refusal and the spill, sized by how slow refusals have been (`round_trip.rs`).
//!
//! # Outages
//!
//! If nothing has been admitted for longer than a request takes to drain, although attempts were
//! made, neither a hint nor the rate says when that will end. What has lasted for some time will last
//! about as long again, and `admissions.rs` predicts a wait of that length. So after the first
//! `max_wait` every request spills on arrival, and one per second probes for the end of the outage.
//!
//! # Other clients of the same PTU
//!
//! An attempt that arrives when the PTU should have reopened, with nothing sent in between, and is
//! refused, lost to another client. `contention.rs` counts these. The rate that the gate then
//! measures is not a property of the PTU but what others leave, and a gate that keeps to it is left
//! less and less. A gate that yields draws lots to sit out openings: replicas that do the same together
//! make about one attempt per opening, but another application takes whatever it likes. How soon
//! after a hint it looks for capacity that the hint did not announce depends on what it finds: twice
//! as soon after each early attempt that found some, half as soon after each that was refused.
//! Replicas leave next to nothing, and cost each other an attempt for nothing; an application that
//! drops what is refused leaves the PTU open until this gate looks. A gate that competes tries again after a fifth of
//! the time that its share would take: the refusal gives the exact time of the next opening, and the
//! first to arrive gets it. The more openings others took, the less of a predicted wait a competing
//! gate counts on: they may be gone in a moment.
//!
//! # Standing queues
//!
//! Waiting saves money only if it fills capacity that would otherwise idle. That holds while a queue
//! forms in a burst and drains after it. Under sustained overload the queue never empties: as many
//! requests spill as without a queue, and all the others wait as well. `standing_queue.rs` applies
//! CoDel's answer (RFC 8289) to this choice: once the predicted wait has stayed above a small target
//! for an interval, the allowed wait is halved, and halved again while that lasts. And since waiting
//! costs time per request but saves money per token, a request in a queue waits for less if it will
//! cost little, judged by the last answers, and if its estimate is large beside that: the PTU charges
//! the estimate until the answer ends, and admits others for that much less.
//!
//! # Trade-offs
//!
//! - Optimal admission: compared with a queue that knows the bucket exactly, 0.3 to 1.5 points more
//!   tokens spill in `benches/SIMULATION.md` (one process).
//! - Attempts: never leaving the PTU open for half a second costs one refusal per third of a second
//!   of waiting. On a large PTU that is nothing; on one of two requests a second it is every fourth
//!   attempt. A PTU charges nothing for a 429, and unused capacity is lost.
//! - Coordination between processes: each learns from its own refusals. The gain shrinks with the
//!   share of a process; one gateway for all of them restores it, and so does
//!   [a fleet](crate::Gate::fleet), whose gates are one.
//! - The service's own assumption for an unstated `max_tokens` is not learned: refusals cannot
//!   separate it from the rate and from the load of others. If it is known, it can be
//!   [set](crate::gate::cost::TokenWeights::unstated_output).
//! - Fairness by size: a large request at the head delays small ones behind it.
//!
//! # Constants
//!
//! Each constant gives its reason where it is defined. The effect of halving and doubling it was
//! measured in an event simulation of this core alone, without layers or sockets: one value was
//! changed at a time, and each of the loads below ran with three seeds, 15 minutes each. For factors
//! above 1 the excess over 1 was scaled, for decays the complement. Unless noted, a load is 10
//! requests a second in bursts, on a PTU sized for their mean, with a bucket of 3 s, `max_wait` 4 s,
//! a round trip of 30 ms, and a cold start.
//!
//! | load | what is different | spilled tokens | mean wait | attempts per success | longest time open |
//! |---|---|---:|---:|---:|---:|
//! | base | | 24.4 % | 695 ms | 1.15 | 0.42 s |
//! | max4000 | `max_tokens` 4,000 beside answers of 256 | 29.7 % | 962 ms | 1.45 | 0.50 s |
//! | unstated | no `max_tokens`, of which the service assumes 4,096; Poisson at 1.2 | 17.7 % | 1,239 ms | 3.31 | 0.50 s |
//! | bimodal8 | 8 % of hints are false and say 5 to 17 s | 24.4 % | 701 ms | 1.15 | 0.40 s |
//! | const5 | every hint says 5 s | 24.4 % | 734 ms | 1.26 | 0.39 s |
//! | small | a PTU of 2 requests a second | 23.2 % | 592 ms | 1.35 | 0.39 s |
//! | procs4 | four processes on the PTU | 25.0 % | 695 ms | 1.36 | 2.5 s |
//! | nb-drop | another application takes half of the PTU in bursts | 4.5 % | 588 ms | 1.26 | 0.39 s |
//! | r40p12 | Poisson at 1.2 of a PTU of 40 requests a second, bucket 10 s | 16.8 % | 238 ms | 1.14 | 0.42 s |
//! | trace07, trace10 | the Azure code trace on a PTU of 0.7 and 1.0 of its load | 72.3, 61.3 % | 405, 523 ms | 1.23, 1.28 | 0.33 s |
//! | pause1 | 14 requests at once every 13 s on a PTU of 500 tokens a second, bucket 2 s | 68.5 % | 396 ms | 2.42 | 0.04 s |
//! | outage429 | two minutes of 429 without a hint | 29.1 % | 522 ms | 1.14 | 0.45 s |
//! | wait30 | `max_wait` 30 s | 12.8 % | 7,991 ms | 1.28 | 0.40 s |
//!
//! The table lists the two clearest changes of each constant. A change is listed from a quarter of a
//! point of spilled tokens (half a point in unstated, pause1 and wait30), an eighth of the mean wait
//! and 40 ms, 0.06 attempts (0.18 in unstated), a quarter of a second of time open, 60 ms of the
//! median wait of spilled requests, or a 95th percentile above 150 ms in the outage. Any change
//! reorders all later events, so smaller ones are noise. "None" means that no load exercises the
//! constant: no load has ranks, for example. A value that looks no worse when halved or doubled is
//! not thereby proven. `MAX_HINT_UNCHECKED_NS` and the two of
//! yielding checks were measured through the layers instead, in the worlds
//! of the same settings that `simulate --matrix` runs: unstated spills 20.2 % there, after 972 ms and
//! 2.11 attempts.
//!
//! | constant | unit | value | halved | doubled |
//! |---|---|---:|---|---|
//! | **`admission.rs`** | | | | |
//! | `WAIT_SAFETY_FACTOR` | factor | 1.05 | max4000: spilled -0.2; trace07: open 0.6 | unstated: spilled -0.6, mean 1470, attempts 3.51 |
//! | `MAX_WAIT_TO_ASK_NS` | time | SECOND / 2 | none | pause1: open 0.6 |
//! | `GIVE_UP_SHARE` | share | 0.9 | unstated: mean 1450 | unstated: mean 1414, attempts 3.49, p50 745 |
//! | `MAX_URGENT_SHARE` | share | 0.9 | none | none |
//! | **`admissions.rs`** | | | | |
//! | `MIN_REFUSALS` | requests | 3 | noise | unstated: mean 1433, attempts 3.49, p50 338 |
//! | `MIN_DROUGHT_S` | s | 1.0 | unstated: attempts 3.56 | unstated: p50 205 |
//! | `MIN_DROUGHT_FILLS` | fills | 4.0 | procs4: spilled -0.3 | unstated: mean 1399, p50 107; procs4: spilled -0.2 |
//! | **`arrivals.rs`** | | | | |
//! | `ARRIVAL_WINDOW_S` | s | 10.0 | none | none |
//! | **`bucket.rs`** | | | | |
//! | `IDLE_AFTER_NS` | time | SECOND | nb-drop: open 0.7; trace07: open 0.6 | noise |
//! | `FORGOTTEN_AFTER_NS` | time | 10 * SECOND | noise | none |
//! | `MIN_NEWS_NS` | time | SECOND / 4 | unstated: mean 1430, attempts 3.52, p50 163 | noise |
//! | `UNKNOWN_FILL_S` | s | 0.05 | none | none |
//! | `GUESS_FILLS` | fills | 0.5 | nb-drop: spilled -0.3 | unstated: mean 1392, p50 428; const5: attempts 1.20 |
//! | `MAX_GUESS_DOUBLINGS` | doublings | 16 | none | outage429: attempts 1.21 |
//! | `MAX_GUESS_S` | s | 0.49 | noise | noise |
//! | `UTILIZATION_AGE_DIVISOR` | 1 / n | 16 | unstated: mean 1399; max4000: spilled -0.3 | unstated: mean 1400, attempts 3.57, p50 353; max4000: spilled -0.3 |
//! | `MAX_MODELLED_SPARE_NS` | time | 60 * SECOND | none | none |
//! | **`bucket_depth.rs`** | | | | |
//! | `SUM_DECAY_PER_REFUSAL` | share | 0.98 | procs4: spilled -0.3 | unstated: spilled +4.8, mean 605, attempts 1.55, open 1.1; max4000: attempts 1.38 |
//! | `MIN_SHARE_SUM` | share | 0.02 | noise | noise |
//! | `UTILIZATION_ROUNDING` | share | 0.001 | none | none |
//! | `MAX_TRUSTED_DEVIATION` | share | 0.25 | none | none |
//! | `DEVIATION_WEIGHT` | share | 0.2 | none | none |
//! | **`contention.rs`** | | | | |
//! | `LOST_WEIGHT` | share | 0.05 | noise | nb-drop: open 1.8 |
//! | `MIN_LOST_SHARE` | share | 0.15 | nb-drop: open 1.4 | noise |
//! | `YIELDING_PACE` | share | 0.6 | procs4: attempts 1.51 | nb-drop: spilled +0.5, open 1.3; procs4: attempts 1.23 |
//! | `COMPETING_PACE` | share | 0.2 | nb-drop: spilled -0.3, attempts 1.52; procs4: attempts 2.55 | nb-drop: spilled +0.6, attempts 1.19; procs4: attempts 1.95 |
//! | `MAX_WAIT_DISCOUNT` | share | 0.6 | procs4: mean 896 | procs4: spilled -0.2, mean 1324 |
//! | `HINT_WEIGHT` | share | 0.05 | noise | noise |
//! | `MAX_HINT_S` | s | 1.0 | noise | none |
//! | `INITIAL_HINT_S` | s | 0.05 | noise | noise |
//! | `MAX_DOUBLINGS` | doublings | 4 | nb-drop: open 1.5; procs4: spilled -0.3 | noise |
//! | `MIN_YIELDING_CHECK_NS` | time | 300 * MILLISECOND | nb-drop: spilled +0.3 | nb-drop: spilled +0.3 |
//! | `MAX_YIELDING_CHECK_NS` | time | 2_500 * MILLISECOND | nb-drop: spilled +0.3, open 1.3; procs4: open 1.1 | noise |
//! | `MAX_PASSED_OVER_S` | s | 0.45 | noise | nb-drop: spilled -0.2 |
//! | **`costs.rs`** | | | | |
//! | `MEAN_WEIGHT` | share | 0.05 | unstated: p50 435; nb-drop: spilled -0.3 | nb-drop: open 0.7; max4000: spilled -0.3 |
//! | `SUM_DECAY` | share | 0.98 | nb-drop: open 0.9; max4000: spilled -0.3 | nb-drop: spilled -0.6; max4000: spilled -0.3 |
//! | `MIN_SPREAD` | share | 1e-4 | not measured | not measured |
//! | `MIN_RELATIVE_COST` | share | 0.01 | not measured | not measured |
//! | `DURATION_WEIGHT` | share | 0.05 | unstated: mean 1406; nb-drop: spilled -0.4 | noise |
//! | **`drain_rate.rs`** | | | | |
//! | `RATE_SAMPLE_WINDOW_S` | s | 10.0 | max4000: spilled -0.3 | unstated: mean 1437, p50 381; nb-drop: open 1.1 |
//! | `MIN_INTERVAL_S` | s | 0.5 | nb-drop: spilled -0.8 | nb-drop: spilled -0.4, open 0.9; max4000: spilled -0.3 |
//! | `MIN_DRAIN_S` | s | 0.05 | unstated: p50 232; max4000: spilled -0.4 | unstated: mean 1468, attempts 3.54, p50 234; max4000: spilled -0.4 |
//! | `SETTLING_S` | s | 3.0 | unstated: p50 557; nb-drop: spilled -0.6 | nb-drop: spilled -0.5 |
//! | **`hints.rs`** | | | | |
//! | `MIN_REPEATED_NS` | time | 20 * MILLISECOND | none | none |
//! | `REPEATS_WEIGHT` | share | 0.2 | none | noise |
//! | `MIN_CONSTANT_SHARE` | share | 0.5 | noise | none |
//! | `DOUBT_FACTOR` | factor | 3.0 | nb-drop: spilled -0.3, open 0.7; max4000: spilled -0.3 | unstated: mean 1439, p50 230 |
//! | `MIN_DOUBTED_S` | s | 0.3 | unstated: mean 1500, attempts 3.57, p50 849 | noise |
//! | `MAX_REFUTED_RATIO` | share | 0.2 | none | none |
//! | `CREDIBLE_FACTOR` | factor | 1.5 | none | none |
//! | `LONGEST_HINT_DECAY` | share | 0.95 | none | none |
//! | `MAX_DRIFT` | share | 0.25 | noise | noise |
//! | `MAX_BLUR_S` | s | 0.2 | noise | none |
//! | `MIN_CONFIRMATION_S` | s | 0.15 | noise | noise |
//! | `MIN_REFUTED_NS` | time | 50 * MILLISECOND | none | none |
//! | `MAX_REMEMBERED` | share | 20.0 | none | none |
//! | `FADE_FACTOR` | share | 0.9 | none | none |
//! | **`prober.rs`** | | | | |
//! | `CHECK_FILLS` | fills | 10.0 | max4000: spilled -0.3; r40p12: attempts 1.20 | noise |
//! | `MIN_CHECK_S` | s | 0.1 | noise | max4000: spilled -0.3 |
//! | `MAX_CHECK_S` | s | 0.3 | nb-drop: spilled -0.9, attempts 1.33, open 1.1; pause1: open 0.3 | nb-drop: spilled -0.6 |
//! | `CHECK_AND_TRIP_S` | s | 0.35 | nb-drop: spilled -0.9, attempts 1.34; const5: attempts 1.41 | none |
//! | `MAX_HINT_UNCHECKED_NS` | time | 360 * MILLISECOND | trace07: spilled +0.3, attempts 1.60; unstated: spilled -1.5, mean 752; small: attempts 1.83 | unstated: spilled +5.6, open 0.9; max4000: open 0.8; small: attempts 1.36, open 0.6 |
//! | `BYPASS_AFTER_NS` | time | 900 * MILLISECOND | noise | none |
//! | `EXPLAINED_SHARE` | share | 0.1 | unstated: mean 1495, attempts 3.51, p50 471 | noise |
//! | `EXPLAINED_S` | s | 0.05 | unstated: mean 1468, attempts 3.55, p50 541 | nb-drop: open 1.7; unstated: mean 1415, p50 498 |
//! | `MAX_WINDOW` | requests | 1_000 | none | none |
//! | `MAX_UNMODELLED_WINDOW` | requests | 64 | none | none |
//! | **`queue.rs`** | | | | |
//! | `MAX_ASKS_PER_WINDOW` | requests | 8 | pause1: spilled +7.8, mean 327, attempts 2.23, open 0.4; unstated: spilled +2.5, mean 938, attempts 2.85, open 1.0, p50 1454 | noise |
//! | `ASK_WINDOW_NS` | time | 4 * SECOND | noise | none |
//! | `MAX_QUEUE_WALKED` | requests | 64 | noise | noise |
//! | **`round_trip.rs`** | | | | |
//! | `MAX_NETWORK_NS` | time | 100 * MILLISECOND | none | none |
//! | `NETWORK_GROWTH_DIVISOR` | 1 / n | 16 | unstated: mean 1447, p50 435; nb-drop: spilled -0.5 | unstated: mean 1408, p50 553; nb-drop: open 0.9 |
//! | `USUAL_DIVISOR` | 1 / n | 16 | max4000: spilled -0.3 | noise |
//! | `DEVIATION_DIVISOR` | 1 / n | 8 | not measured | not measured |
//! | `LONGEST_DECAY_DIVISOR` | 1 / n | 512 | none | none |
//! | `RESERVE_MARGIN_DIVISOR` | 1 / n | 16 | noise | none |
//! | `SILENCE_DEVIATIONS` | deviations | 4 | not measured | as without it: reasoning-tail open 0.5 |
//! | `SILENCE_HALF_TRIPS` | share | 3 | pause1: spilled +3.7, mean 309, open 0.4; max4000: spilled +0.8, attempts 1.73 | pause1: spilled +0.9; nb-drop: open 0.8 |
//! | `MIN_SILENCE_NS` | time | SECOND / 50 | none | none |
//! | **`standing_queue.rs`** | | | | |
//! | `TARGET_S` | s | 0.1 | noise | unstated: mean 1518, attempts 3.58, p50 491; r40p12: mean 323 |
//! | `TARGET_SHARE` | share | 0.025 | none | unstated: mean 1518, attempts 3.58, p50 491; max4000: spilled -0.2 |
//! | `INTERVAL_WAITS` | waits | 15.0 | wait30: spilled +0.5 | unstated: mean 1581, attempts 3.62, p50 1215; max4000: spilled -0.6, mean 1105 |
//! | `CUT_FACTOR` | factor | 0.5 | noise | r40p12: mean 2092; unstated: mean 1581, attempts 3.62, p50 1215 |
//! | `CUT_INTERVAL_S` | s | 3.0 | noise | unstated: mean 1431, attempts 3.54 |
//! | `MIN_SHARE` | share | 0.02 | noise | noise |
//! | `GROWTH_PER_INTERVAL` | factor | 1.25 | noise | unstated: mean 1426, attempts 3.49; r40p12: mean 282 |
//! | `IDLE_GROWTH_PER_S` | 1 / s | 1.15 | noise | noise |
//! | `MAX_IDLE_S` | s | 1_000.0 | none | none |
//! | `MIN_SIZE_SHARE` | share | 0.05 | none | none |

mod admission;
mod admissions;
mod arrivals;
mod bucket;
mod bucket_depth;
mod contention;
mod costs;
mod drain_rate;
mod hints;
mod knowledge;
mod prober;
mod queue;
mod round_trip;
mod standing_queue;
mod time;

#[cfg(test)]
mod model;

pub(crate) use self::{admission::SpillReason, queue::QueueKey};
pub(super) use self::{
    admission::{Applicant, Core, Decision, RefusedRequest},
    bucket::TrackedAttempt,
    knowledge::Evidence,
    time::{Nanos, nanos, seconds},
};
pub use self::{contention::Contention, knowledge::Knowledge};
