//! No request is refused if a wait within its `max_wait` would be served, checked against a naive
//! oracle that knows when every backend is open.

use std::{ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::join_all;
use http::{Request, Response};
use http_body_util::Full;
use proptest::prelude::*;
use tower::{Layer, ServiceExt, util::BoxCloneService};
use tower_spillover::{
    Backend, BackendPool, Gate, MaxWait, Priority, RegionRotateLayer, ResponseBody,
    SmartFallbackLayer, WaitLayer, gate::Mode, smart_fallback::Class,
};

use crate::{
    clock::{ms, pass, paused},
    leaf::{Answer, Broken, Leaf, request},
};

/// When each backend is open, and the arriving requests.
#[derive(Clone, Debug)]
struct World {
    mode: Mode,
    ptus: Vec<Schedule>,
    standards: Vec<Schedule>,
    requests: Vec<Asks>,
    /// Whether each tier has another backend, which is misconfigured.
    misconfigured: [bool; 2],
}

/// How long a backend is closed, then open, alternately; after the last interval it stays open.
#[derive(Clone, Debug)]
struct Schedule(Vec<(u64, u64)>);

#[derive(Clone, Debug)]
struct Asks {
    at: u64,
    max_wait: u64,
    rank: usize,
    spills: bool,
    /// When its caller gives up.
    gives_up: Option<u64>,
}

/// The outcome of a request: whether it was served and when, or `None` if its caller gave up.
type Fate = Option<(bool, u64)>;

impl Schedule {
    fn closed(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0.iter().scan(0, |at, &(closed, open)| {
            let start = *at;
            *at += closed + open;
            Some(start..start + closed)
        })
    }

    /// How much longer it refuses.
    fn left(&self, at: u64) -> Option<u64> {
        self.closed().find(|closed| closed.contains(&at)).map(|closed| closed.end - at)
    }

    /// Whether it is open at any instant within `wait` from `at` on.
    fn serves_within(&self, at: u64, wait: u64) -> bool {
        self.left(at).is_none_or(|left| left <= wait)
    }
}

type Service = BoxCloneService<Request<Full<Bytes>>, Response<ResponseBody<Full<Bytes>>>, Broken>;

impl World {
    /// The backends of a tier are called after it.
    fn pool(tier: &str, schedules: &[Schedule], misconfigured: bool) -> RegionRotateLayer {
        let backends = (0..schedules.len() + usize::from(misconfigured)).map(|index| {
            let endpoint = format!("https://{tier}-{index}.example");
            Backend::new(format!("{tier}-{index}"), endpoint).unwrap().api_key("key")
        });
        RegionRotateLayer::new(BackendPool::new(backends).unwrap())
    }

    fn service(&self) -> Service {
        let world = Arc::new(self.clone());
        let leaf = Leaf::new(move |seen| {
            let host = seen.host().trim_end_matches(".example");
            let (tier, index) = host.split_once('-').unwrap();
            let tier = if tier == "ptu" { &world.ptus } else { &world.standards };
            let Some(schedule) = tier.get(index.parse::<usize>().unwrap()) else {
                return Answer::status(403);
            };
            match schedule.left(seen.at.as_millis() as u64) {
                None => Answer::ok(),
                Some(left) => Answer::refused(left),
            }
        });
        let classes = CLASSES.iter().enumerate().flat_map(|(rank, [plain, staying])| {
            let like_it = |name: &'static str| Class::new(name).rank(rank as u8);
            [like_it(plain), like_it(staying).never_spill()]
        });
        let ptu = || Self::pool("ptu", &self.ptus, self.misconfigured[0]);
        let standard = || Self::pool("standard", &self.standards, self.misconfigured[1]);
        if self.ptus.is_empty() {
            let layer = classes.fold(WaitLayer::new(), WaitLayer::class);
            return BoxCloneService::new(layer.layer(standard().layer(leaf)));
        }
        let layer = match self.standards.is_empty() {
            true => SmartFallbackLayer::alone(ptu()),
            false => SmartFallbackLayer::new(ptu(), standard()),
        };
        let layer = layer.gate(Gate::new().mode(self.mode));
        BoxCloneService::new(classes.fold(layer, SmartFallbackLayer::class).layer(leaf))
    }

    async fn play(&self) -> Vec<Fate> {
        let service = self.service();
        let calls = self.requests.iter().map(|asks| {
            let service = service.clone();
            async move {
                pass(ms(asks.at)).await;
                let mut request = request();
                let extensions = request.extensions_mut();
                extensions.insert(MaxWait(ms(asks.max_wait)));
                extensions.insert(Priority::from(CLASSES[asks.rank][usize::from(!asks.spills)]));
                let start = crate::clock::now();
                let answer = service.oneshot(request);
                let limit = asks.gives_up.map_or(Duration::MAX, ms);
                tokio::select! {
                    biased;
                    answer = answer => {
                        let is_served = answer.unwrap().status().is_success();
                        Some((is_served, start.elapsed().as_millis() as u64))
                    }
                    () = pass(limit.min(ms(1_000_000))) => None,
                }
            }
        });
        join_all(calls).await
    }
}

fn check(world: &World) -> Result<(), TestCaseError> {
    let fates = paused(world.play());
    for (asks, fate) in world.requests.iter().zip(fates) {
        let may = |max_wait| {
            let may = |schedules: &[Schedule]| {
                schedules.iter().any(|it| it.serves_within(asks.at, max_wait))
            };
            let stays = !asks.spills && !world.ptus.is_empty();
            may(&world.ptus) || !stays && may(&world.standards)
        };
        let Some((is_served, took)) = fate else { continue };
        prop_assert!(took <= asks.max_wait, "{:?} took {} ms", asks, took);
        let is_winnable = may(asks.max_wait);
        // A PTU is a bucket to an adaptive gate, which lets one go at an opening and the next ones soon after.
        let is_close = asks.max_wait.checked_sub(SOON).is_none_or(|wait| !may(wait));
        if world.mode == Mode::Adaptive && is_winnable && is_close {
            continue;
        }
        prop_assert_eq!(is_served, is_winnable, "{:?} after {} ms", asks, took);
        // It detects quickly that the PTU is closed, even without a hint.
        let in_vain = if world.mode == Mode::Adaptive { SOON } else { 0 };
        prop_assert!(is_served || took <= in_vain, "{:?} waited in vain for {} ms", asks, took);
    }
    Ok(())
}

fn schedule() -> impl Strategy<Value = Schedule> {
    prop_oneof![
        3 => prop::collection::vec((1..6_000_u64, SOON..2_000), 0..4),
        1 => (6_000..30_000_u64).prop_map(|closed| vec![(closed, 1_000)]),
    ]
    .prop_map(Schedule)
}

fn asks() -> impl Strategy<Value = Asks> {
    let max_wait = prop_oneof![1 => Just(0), 3 => 1..8_000_u64];
    let gives_up = prop::option::weighted(0.2, 0..3_000_u64);
    (0..12_000_u64, max_wait, 0..2_usize, prop::bool::weighted(0.8), gives_up).prop_map(
        |(at, max_wait, rank, spills, gives_up)| Asks { at, max_wait, rank, spills, gives_up },
    )
}

fn worlds() -> impl Strategy<Value = World> {
    let mode = prop_oneof![Just(Mode::Adaptive), Just(Mode::Shared)];
    let tier = || prop::collection::vec(schedule(), 0..4);
    let misconfigured = any::<[bool; 2]>();
    (mode, tier(), tier(), prop::collection::vec(asks(), 1..25), misconfigured)
        .prop_filter("a backend", |(_, ptus, standards, ..)| ptus.len() + standards.len() > 0)
        .prop_map(|(mode, ptus, standards, requests, misconfigured)| World {
            mode,
            ptus,
            standards,
            requests,
            misconfigured,
        })
}

/// A PTU that is never open unseen for half a second while requests wait may be open unseen for less.
const SOON: u64 = 600;

/// By rank: of requests that may spill, and of those that may not.
const CLASSES: [[&str; 2]; 2] = [["soon", "soon here"], ["later", "later here"]];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_request_is_refused_while_a_wait_would_be_served_and_none_waits_in_vain(world in worlds()) {
        check(&world)?;
    }
}
