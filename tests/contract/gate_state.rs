//! The state that a gate reports: what it knows of its PTU, since when, and why.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tower::{Layer, ServiceExt};
use tower_spillover::{
    Gate, MaxWait, SmartFallback, SmartFallbackLayer,
    gate::{GateState, Knowledge, Mode},
};

use crate::{
    clock::{ms, pass},
    leaf::{Answer, Leaf, Put, request},
};

/// A PTU that admits one request per 50 ms, with exact hints.
struct World {
    gate: Gate,
    service: SmartFallback<Leaf, Leaf>,
    trouble: Arc<Trouble>,
    /// When the PTU opens.
    opens_at: Arc<Mutex<Duration>>,
    start: tokio::time::Instant,
}

/// The PTU's faults.
#[derive(Default)]
struct Trouble {
    /// Every refusal has this hint, in milliseconds; none where it is zero.
    hint: AtomicU64,
    /// Refuses everything without a hint while it is not zero.
    is_out: AtomicU64,
}

impl World {
    fn new(mode: Mode) -> Self {
        let (trouble, opens_at) = (Arc::<Trouble>::default(), Arc::<Mutex<Duration>>::default());
        let (inner, opens) = (Arc::clone(&trouble), Arc::clone(&opens_at));
        let ptu = Leaf::new(move |seen| {
            if inner.is_out.load(Ordering::Relaxed) != 0 {
                return Answer::status(429);
            }
            let mut opens_at = opens.lock().unwrap();
            let Some(left) = opens_at.checked_sub(seen.at).filter(|left| !left.is_zero()) else {
                *opens_at = seen.at + SPACING;
                return Answer::ok();
            };
            let hint = match inner.hint.load(Ordering::Relaxed) {
                0 => left.as_micros().div_ceil(1_000) as u64,
                hint => hint,
            };
            Answer::refused(hint)
        });
        let gate = Gate::new().mode(mode);
        let standard = Leaf::playing([Answer::ok()]);
        let layer = SmartFallbackLayer::new(Put(ptu), Put(standard)).gate(gate.clone());
        let (service, start) = (layer.layer(()), crate::clock::now());
        Self { gate, service, trouble, opens_at, start }
    }

    /// Sends a request every `gap` milliseconds for `time`, and waits for none.
    async fn load(&self, time: u64, gap: u64) {
        for _ in 0..time / gap {
            let mut request: Request<Full<Bytes>> = request();
            request.extensions_mut().insert(MaxWait(ms(1_000)));
            tokio::spawn(self.service.clone().oneshot(request));
            pass(ms(gap)).await;
        }
    }

    fn state(&self) -> GateState {
        self.gate.state().unwrap()
    }

    fn knowledge(&self) -> Knowledge {
        self.state().knowledge()
    }
}

const SPACING: Duration = Duration::from_millis(50);

#[tokio::test(start_paused = true)]
async fn a_new_gate_says_that_the_ptu_is_open_and_since_when() {
    let world = World::new(Mode::Adaptive);
    pass(ms(1_500)).await;
    assert_eq!(world.state().to_string(), "open for 1.5 s: the PTU does not refuse");
    assert_eq!((world.knowledge(), world.state().lasted()), (Knowledge::Open, ms(1_500)));
}

#[tokio::test(start_paused = true)]
async fn after_the_first_refusal_it_learns_and_says_from_how_many() {
    let world = World::new(Mode::Adaptive);
    world.load(100, 20).await;
    let state = world.state();
    assert_eq!(state.knowledge(), Knowledge::Learning);
    assert!(state.lasted() <= ms(90), "{state}");
    assert!(state.why().to_string().contains("so far"), "{state}");
}

#[tokio::test(start_paused = true)]
async fn under_load_it_says_what_it_measured_and_afterwards_that_the_ptu_is_open_again() {
    let world = World::new(Mode::Adaptive);
    world.load(15_000, 40).await;
    let state = world.state();
    assert_eq!(state.knowledge(), Knowledge::Measured, "{state}");
    assert!(state.lasted() > ms(5_000), "{state}");
    let rate = world.gate.rate().unwrap();
    let said = state.why().to_string().replace(',', "");
    assert!(said.contains(&format!("drains {rate:.0} weighted tokens/s")), "{said}");
    assert!(format!("{:?}", world.gate).contains(&state.to_string()), "{:?}", world.gate);
    pass(ms(20_000)).await;
    assert_eq!(world.knowledge(), Knowledge::Open);
}

#[tokio::test(start_paused = true)]
async fn a_neighbour_that_takes_openings_is_told_with_its_share() {
    let world = World::new(Mode::Adaptive);
    let (opens_at, start) = (Arc::clone(&world.opens_at), world.start);
    let neighbour = tokio::spawn(async move {
        loop {
            // It is sooner at every opening of half a second, and then leaves as many alone.
            for _ in 0..10 {
                let at = *opens_at.lock().unwrap();
                pass(at.saturating_sub(start.elapsed() + ms(1))).await;
                *opens_at.lock().unwrap() = start.elapsed() + SPACING;
            }
            pass(ms(500)).await;
        }
    });
    world.load(20_000, 60).await;
    neighbour.abort();
    let state = world.state();
    assert_eq!(state.knowledge(), Knowledge::Shared, "{state}");
    assert!(state.why().to_string().starts_with("others took "), "{state}");
}

#[tokio::test(start_paused = true)]
async fn a_hint_that_fits_nothing_is_doubted_and_quoted() {
    let world = World::new(Mode::Adaptive);
    world.load(15_000, 40).await;
    world.trouble.hint.store(12_000, Ordering::Relaxed);
    while world.knowledge() != Knowledge::Doubting {
        world.load(10, 10).await;
    }
    let state = world.state();
    assert!(state.why().to_string().starts_with("a hint of 12 s where "), "{state}");
    world.load(10_000, 40).await;
    let said = "every refusal has the same hint of 12 s, so it is ignored";
    assert_eq!(world.state().why().to_string(), said);
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_told_with_its_length_and_ends_when_the_ptu_is_back() {
    let world = World::new(Mode::Adaptive);
    world.load(15_000, 40).await;
    world.trouble.is_out.store(1, Ordering::Relaxed);
    world.load(5_000, 40).await;
    let state = world.state();
    assert_eq!(state.knowledge(), Knowledge::Outage, "{state}");
    assert!(state.lasted() < ms(5_000), "{state}");
    let why = state.why().to_string();
    assert!(why.starts_with("nothing was admitted for 5.0 s, and "), "{why}");
    world.trouble.is_out.store(0, Ordering::Relaxed);
    world.load(2_000, 40).await;
    assert_ne!(world.knowledge(), Knowledge::Outage, "{}", world.state());
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_learns_nothing_has_no_state() {
    for mode in [Mode::Shared, Mode::Plain] {
        let world = World::new(mode);
        world.load(2_000, 40).await;
        assert_eq!(world.gate.state(), None);
    }
}
