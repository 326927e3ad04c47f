//! Random outcomes through the whole stack: invariants that hold whatever the service answers.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::join_all;
use proptest::prelude::*;
use tower::{Layer, ServiceExt};
use tower_spillover::{
    Backend, BackendPool, Gate, MaxWait, RegionRotateLayer, SmartFallbackLayer, gate::Mode,
    policy::CooldownPolicy,
};

use crate::{
    clock::{ms, pass, paused, timed},
    leaf::{Answer, Leaf, Seen, account, header, request},
};

/// The answers of each backend, in order.
type Log = Arc<Mutex<Vec<(usize, Said)>>>;

/// The answer of a backend to one attempt.
#[derive(Clone, Copy, Debug)]
enum Said {
    Served,
    For(u64),
    /// A refusal without a hint, with zero, with one too long to believe, as a 503 with seconds.
    Unsaid,
    Zero,
    Absurd,
    Unavailable(u64),
    /// Not found: returned to the caller in any case.
    Missing,
}

impl Said {
    fn answer(self) -> Answer {
        match self {
            Self::Served => Answer::ok(),
            Self::For(ms) => Answer::refused(ms),
            Self::Unsaid => Answer::status(429),
            Self::Zero => Answer::refused(0),
            Self::Absurd => Answer::status(429).with("retry-after", "9999999999999"),
            Self::Unavailable(s) => Answer::status(503).with("retry-after", s.to_string()),
            Self::Missing => Answer::status(404),
        }
    }

    /// How long a backend cools down after this answer, by the documented defaults, and the wait
    /// announced to callers: for a hint longer than any window, which applies to requests as heavy as
    /// these, the hint itself.
    fn rest(self) -> Option<(Duration, Duration)> {
        let (longest, day) = (Duration::from_secs(60), Duration::from_secs(86_400));
        let believed = match self {
            Self::Served | Self::Missing => return None,
            Self::For(wait) if wait >= 61_000 => return Some((longest, ms(wait).min(day))),
            Self::Absurd => return Some((longest, day)),
            Self::For(wait) => ms(wait).min(longest),
            Self::Unsaid => ms(1_000),
            Self::Zero => CooldownPolicy::default().after(zero()),
            Self::Unavailable(s) => Duration::from_secs(s).min(longest),
        };
        Some((believed, believed))
    }
}

const fn zero() -> tower_spillover::classify::Outcome {
    tower_spillover::classify::Outcome::Throttled(tower_spillover::classify::Hint::Zero)
}

#[derive(Clone, Debug)]
struct World {
    /// The priorities of each tier's backends.
    tiers: [Vec<u32>; 2],
    /// What each backend answers in turn, repeatedly, and after how long.
    scripts: Vec<Vec<(Said, u64)>>,
    /// When each request follows the previous one, and its own `max_wait`.
    requests: Vec<(u64, Option<u64>)>,
}

fn said() -> impl Strategy<Value = Said> {
    prop_oneof![
        3 => Just(Said::Served),
        6 => (1..6_000_u64).prop_map(Said::For),
        1 => (60_000..100_000_000_u64).prop_map(Said::For),
        1 => Just(Said::Unsaid),
        1 => Just(Said::Zero),
        1 => Just(Said::Absurd),
        1 => (1..9_u64).prop_map(Said::Unavailable),
        1 => Just(Said::Missing),
    ]
}

fn worlds(slowest: u64) -> impl Strategy<Value = World> {
    let tier = || prop::collection::vec(1..3_u32, 1..4);
    let script = prop::collection::vec((said(), 0..=slowest), 1..8);
    let request = (0..3_000_u64, prop::option::of(0..8_000_u64));
    ([tier(), tier()], prop::collection::vec(script, 6), prop::collection::vec(request, 1..15))
        .prop_map(|(tiers, scripts, requests)| World { tiers, scripts, requests })
}

impl World {
    /// The index of a backend among all: three in each tier.
    fn index(seen: &Seen) -> usize {
        seen.host().trim_end_matches(".example").parse().unwrap()
    }

    fn pool(&self, tier: usize) -> BackendPool {
        let backends = self.tiers[tier].iter().enumerate().map(|(index, &priority)| {
            let index = (tier * 3 + index).to_string();
            let endpoint = format!("https://{index}.example");
            Backend::new(index, endpoint).unwrap().api_key("key").priority(priority)
        });
        BackendPool::new(backends).unwrap()
    }

    fn priority(&self, index: usize) -> u32 {
        self.tiers[index / 3][index % 3]
    }

    fn client(&self) -> (Leaf, Log) {
        let (scripts, said) = (self.scripts.clone(), Log::default());
        let log = Arc::clone(&said);
        let leaf = Leaf::new(move |seen| {
            let (index, mut log) = (Self::index(seen), log.lock().unwrap());
            let turn = log.iter().filter(|(other, _)| *other == index).count();
            let (said, delay) = scripts[index][turn % scripts[index].len()];
            log.push((index, said));
            said.answer().after(delay)
        });
        (leaf, said)
    }
}

/// The outcome of one request.
struct Fate {
    took: Duration,
    waited: Duration,
    max_wait: Duration,
    status: u16,
    told: Option<Duration>,
    ended: Duration,
}

async fn play(world: &World, mode: Mode) -> (Vec<Fate>, Vec<Seen>, Vec<Said>) {
    let (client, said) = world.client();
    let layer = SmartFallbackLayer::new(
        RegionRotateLayer::new(world.pool(0)),
        RegionRotateLayer::new(world.pool(1)),
    )
    .gate(Gate::new().mode(mode));
    let service = layer.layer(client.clone());
    let mut arrival = 0;
    let requests = world.requests.iter().enumerate().map(|(id, &(gap, max_wait))| {
        arrival += gap;
        let (service, client, arrival) = (service.clone(), client.clone(), ms(arrival));
        async move {
            pass(arrival).await;
            let mut request = request();
            request.headers_mut().insert("x-id", id.into());
            if let Some(max_wait) = max_wait {
                request.extensions_mut().insert(MaxWait(ms(max_wait)));
            }
            let (answer, took) = timed(service.oneshot(request)).await;
            let answer = answer.unwrap();
            let told = header(&answer, "retry-after-ms").map(|told| ms(told.parse().unwrap()));
            Fate {
                took,
                waited: account(&answer).waited(),
                max_wait: ms(max_wait.unwrap_or(4_000)),
                status: answer.status().as_u16(),
                told,
                ended: client.elapsed(),
            }
        }
    });
    let fates = join_all(requests).await;
    let said = said.lock().unwrap().iter().map(|&(_, said)| said).collect();
    (fates, client.seen(), said)
}

/// Until when each backend is closed, and the reopening announced to callers, given its answers
/// before `attempt`.
fn closed(seen: &[Seen], said: &[Said], attempt: usize) -> BTreeMap<usize, (Duration, Duration)> {
    let mut closed = BTreeMap::new();
    for (seen, said) in seen.iter().zip(said).take(attempt) {
        if let Some((rest, told)) = said.rest() {
            let until: &mut (Duration, Duration) = closed.entry(World::index(seen)).or_default();
            *until = (*until).max((seen.at + rest, seen.at + told));
        }
    }
    closed
}

/// Checks a world with instant answers, where all state is up to date. The record of the reference
/// rule is exact; a gate estimates.
fn check_exactly(world: &World) -> Result<(), TestCaseError> {
    let (fates, seen, said) = paused(play(world, Mode::Shared));
    for attempt in 0..seen.len() {
        check_choice(world, &seen, &said, attempt)?;
    }
    for fate in fates {
        prop_assert_eq!(fate.took, fate.waited, "nothing else takes time");
        prop_assert!(fate.took <= fate.max_wait);
        match fate.told.filter(|_| [429, 503].contains(&fate.status)) {
            Some(told) => {
                let soonest = soonest(world, &seen, &said, fate.ended);
                prop_assert_eq!(told, soonest.max(ms(1)), "the soonest");
            }
            None => prop_assert!([200, 404].contains(&fate.status), "{}", fate.status),
        }
    }
    Ok(())
}

/// Checks that an attempt went to an open backend, new to its request, and that no better one
/// existed.
fn check_choice(
    world: &World,
    seen: &[Seen],
    said: &[Said],
    attempt: usize,
) -> Result<(), TestCaseError> {
    let (closed, now) = (closed(seen, said, attempt), &seen[attempt]);
    let is_open = |index: usize| closed.get(&index).is_none_or(|&(until, _)| until <= now.at);
    let tried = |other: usize| {
        let mine = |seen: &&Seen| seen.header("x-id") == now.header("x-id");
        // A backend may be called again after a wait.
        let same_lap = |seen: &&Seen| seen.at == now.at;
        let before = seen[..attempt].iter().filter(mine).filter(same_lap);
        before.map(World::index).any(|tried| tried == other)
    };
    let index = World::index(now);
    prop_assert!(is_open(index), "attempt {} on a closed backend", attempt);
    prop_assert!(!tried(index), "attempt {} returns to a backend", attempt);
    let tier = index / 3;
    for other in (0..world.tiers[tier].len()).map(|other| tier * 3 + other) {
        let better = world.priority(other) < world.priority(index);
        prop_assert!(!(better && is_open(other) && !tried(other)), "{} was better", other);
    }
    Ok(())
}

/// How long after `now` the first backend of either tier reopens.
fn soonest(world: &World, seen: &[Seen], said: &[Said], now: Duration) -> Duration {
    let closed = closed(seen, said, seen.partition_point(|seen| seen.at <= now));
    let backends = [0, 1].map(|tier| (0..world.tiers[tier].len()).map(move |i| tier * 3 + i));
    let reopening = |index| {
        let (until, told) = closed.get(&index).copied().unwrap_or_default();
        if until > now { told - now } else { Duration::ZERO }
    };
    backends.into_iter().flatten().map(reopening).min().expect("a tier has a backend")
}

/// Checks invariants that hold however long the answers take.
fn check_roughly(world: &World) -> Result<(), TestCaseError> {
    let (fates, seen, said) = paused(play(world, Mode::Adaptive));
    prop_assert_eq!(fates.len(), world.requests.len());
    for fate in fates {
        prop_assert!(fate.waited <= fate.max_wait);
        prop_assert!(fate.told.is_none_or(|told| !told.is_zero()));
    }
    // A request that returns to a region has waited as long as that had refused.
    let mut open = BTreeMap::new();
    for (seen, said) in seen.iter().zip(said).filter(|(seen, _)| World::index(seen) >= 3) {
        let visit = (seen.header("x-id"), World::index(seen));
        prop_assert!(open.get(&visit).is_none_or(|&open| open <= seen.at), "{:?} too soon", visit);
        open.insert(visit, said.rest().map_or(Duration::MAX, |(rest, _)| seen.at + rest));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_best_open_backend_is_asked_once_and_the_soonest_hint_is_the_minimum(world in worlds(0)) {
        check_exactly(&world)?;
    }

    #[test]
    fn slow_answers_never_make_a_request_wait_past_max_wait(world in worlds(2_000)) {
        check_roughly(&world)?;
    }
}
