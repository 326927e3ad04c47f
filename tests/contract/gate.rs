//! Which requests the gate admits and when, which it spills, and what remains of cancelled ones.

use std::{
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::future::{join_all, poll_immediate};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tokio::task::JoinHandle;
use tower::{Layer, ServiceExt};
use tower_spillover::{
    Backend, BackendPool, Deadline, Gate, MaxWait, Priority, RegionRotateLayer, SmartFallback,
    SmartFallbackLayer,
    classify::{Hint, Reason},
    gate::Mode,
    policy::WaitThenSpill,
    smart_fallback::{Class, SpillBudget, WhenSpent},
};

use crate::{
    clock::{self, ms, pass, timed},
    leaf::{Answer, Broken, Leaf, Put, Seen, account, header, request},
};

type Reply = Result<Response<Full<Bytes>>, Broken>;

/// A PTU, a Standard deployment that takes everything, and the gate between them.
struct World {
    ptu: Leaf,
    standard: Leaf,
    gate: Gate,
    service: SmartFallback<Leaf, Leaf>,
    /// The numbers of the requests that the PTU admitted.
    admitted: Arc<Mutex<Vec<usize>>>,
}

impl World {
    /// A PTU that admits one request per `spacing`, with exact hints.
    fn spaced(spacing: u64, trip: u64, configure: impl FnOnce(Layers) -> Layers) -> Self {
        Self::spaced_before(Leaf::playing([Answer::ok()]), spacing, trip, configure)
    }

    /// The same with another Standard deployment.
    fn spaced_before(
        standard: Leaf,
        spacing: u64,
        trip: u64,
        configure: impl FnOnce(Layers) -> Layers,
    ) -> Self {
        let admitted = Arc::<Mutex<Vec<usize>>>::default();
        let (log, open_at) = (Arc::clone(&admitted), Mutex::new(Duration::ZERO));
        let ptu = Leaf::new(move |seen| {
            let mut open_at = open_at.lock().unwrap();
            match open_at.checked_sub(seen.at).filter(|left| !left.is_zero()) {
                Some(left) => Answer::refused(left.as_micros().div_ceil(1_000) as u64).after(trip),
                None => {
                    *open_at = seen.at + ms(spacing);
                    log.lock().unwrap().push(number(seen));
                    Answer::ok().after(trip)
                }
            }
        });
        Self::over(ptu, standard, admitted, configure)
    }

    fn playing(answers: impl Into<Vec<Answer>>, configure: impl FnOnce(Layers) -> Layers) -> Self {
        let standard = Leaf::playing([Answer::ok()]);
        Self::over(Leaf::playing(answers), standard, Arc::default(), configure)
    }

    fn over(
        ptu: Leaf,
        standard: Leaf,
        admitted: Arc<Mutex<Vec<usize>>>,
        configure: impl FnOnce(Layers) -> Layers,
    ) -> Self {
        let gate = Gate::new().standing_queue_interval(None);
        let layer = SmartFallbackLayer::new(Put(ptu.clone()), Put(standard.clone()));
        let service = configure(layer.gate(gate.clone())).layer(());
        Self { ptu, standard, gate, service, admitted }
    }

    fn send(&self, request: Request<Full<Bytes>>) -> impl Future<Output = Reply> + Send + 'static {
        self.service.clone().oneshot(request)
    }

    async fn ask(&self, request: Request<Full<Bytes>>) -> (Response<Full<Bytes>>, u128) {
        let (reply, took) = timed(self.send(request)).await;
        (reply.unwrap(), took.as_millis())
    }

    /// Requests from `numbers`, started in this order and in flight.
    async fn begin(&self, numbers: impl IntoIterator<Item = usize>) -> Vec<JoinHandle<Reply>> {
        let tasks = numbers.into_iter().map(|n| tokio::spawn(self.send(numbered(n)))).collect();
        tokio::task::yield_now().await;
        tasks
    }

    fn admitted(&self) -> Vec<usize> {
        self.admitted.lock().unwrap().clone()
    }
}

type Layers = SmartFallbackLayer<Put<Leaf>, Put<Leaf>>;

fn numbered(number: usize) -> Request<Full<Bytes>> {
    let mut request = request();
    request.headers_mut().insert("x-number", number.into());
    request
}

fn number(seen: &Seen) -> usize {
    seen.header("x-number").map_or(usize::MAX, |number| number.parse().unwrap())
}

fn with<T: Clone + Send + Sync + 'static>(
    extension: T,
    mut request: Request<Full<Bytes>>,
) -> Request<Full<Bytes>> {
    request.extensions_mut().insert(extension);
    request
}

fn patient(layer: Layers) -> Layers {
    layer.max_wait(Duration::from_secs(60))
}

async fn all_ok(tasks: Vec<JoinHandle<Reply>>) {
    for reply in join_all(tasks).await {
        assert_eq!(reply.unwrap().unwrap().status(), StatusCode::OK);
    }
}

#[tokio::test(start_paused = true)]
async fn a_crowd_is_served_in_order_with_a_few_attempts_each() {
    let world = World::spaced(100, 0, patient);
    all_ok(world.begin(0..60).await).await;
    assert_eq!(world.admitted(), (0..60).collect::<Vec<_>>());
    assert!(world.ptu.len() <= 60 * 3, "{} attempts", world.ptu.len());
    assert_eq!((world.standard.len(), world.gate.waiting()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_queues_behind_those_who_wait() {
    let world = World::spaced(100, 3, patient);
    let mut tasks = Vec::new();
    for number in 0..40 {
        tasks.extend(world.begin([number]).await);
        pass(ms(37)).await;
    }
    all_ok(tasks).await;
    assert_eq!(world.admitted(), (0..40).collect::<Vec<_>>());
    assert_eq!((world.standard.len(), world.gate.waiting()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn who_cannot_be_served_in_time_spills_at_once_when_the_rate_is_known() {
    let world = World::spaced(100, 0, patient);
    let crowd = world.begin(0..200).await;
    pass(ms(10_000)).await;
    assert!(world.gate.is_pacing() && world.gate.waiting() > 50, "{:?}", world.gate);
    let asked = world.ptu.len();
    let (response, took) = world.ask(with(MaxWait(ms(1_000)), numbered(999))).await;
    assert!(account(&response).spilled());
    assert_eq!((took, world.standard.len(), world.ptu.len()), (0, 1, asked));
    all_ok(crowd).await;
    assert_eq!(world.admitted(), (0..200).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn nobody_is_sent_anywhere_later_than_max_wait() {
    for trip in [0, 1, 5] {
        let world = World::spaced(100, trip, |layer| layer);
        let (mut tasks, mut latest) = (Vec::new(), Vec::new());
        for number in 0..300_usize {
            let max_wait = ms(20 + (number as u64 * 7_919) % 1_900);
            latest.push(world.ptu.elapsed() + max_wait + ms(1));
            tasks.push(tokio::spawn(world.send(with(MaxWait(max_wait), numbered(number)))));
            pass(ms(1 + (number as u64 * 31) % 60)).await;
        }
        all_ok(tasks).await;
        for seen in world.ptu.seen().iter().chain(&world.standard.seen()) {
            let latest = latest[number(seen)];
            assert!(seen.at <= latest, "{} at {:?}, not {latest:?}", number(seen), seen.at);
        }
        assert!(world.standard.len() > 50 && world.admitted().len() > 50);
        assert_eq!(world.gate.waiting(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn no_attempt_is_made_whose_refusal_would_come_back_too_late() {
    let world = World::playing([Answer::refused(100).after(20)], |layer| layer.max_wait(ms(115)));
    assert!(account(&world.ask(request()).await.0).spilled());
    assert_eq!((world.ptu.times(), world.standard.times()), (vec![0], vec![20]));
}

#[tokio::test(start_paused = true)]
async fn whoever_gives_up_leaves_the_turn_to_the_next() {
    for gone in [vec![1], vec![3], vec![5], vec![1, 2, 4], vec![1, 2, 3, 4, 5]] {
        let world = World::spaced(100, 0, patient);
        let tasks = world.begin(0..6).await;
        pass(ms(50)).await;
        assert_eq!(world.gate.waiting(), 5);
        for &number in &gone {
            tasks[number].abort();
        }
        let (mut left, mut expected) = (Vec::new(), Vec::new());
        for (number, task) in tasks.into_iter().enumerate() {
            if !gone.contains(&number) {
                expected.push(number);
                left.push(task);
            }
        }
        let (_, took) = timed(all_ok(left)).await;
        assert_eq!(world.admitted(), expected, "without {gone:?}");
        tokio::task::yield_now().await;
        let openings = (expected.len() as u64 - 1) * 100;
        assert_eq!(took, ms(openings.saturating_sub(50)), "without {gone:?}");
        assert_eq!((world.gate.waiting(), world.standard.len()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_dropped_under_way_does_not_hold_up_the_others() {
    let hanging = Answer::ok().after(100_000);
    let world = World::playing([Answer::refused(100), hanging, Answer::ok()], patient);
    let tasks = world.begin(0..2).await;
    // So soon afterwards, its silence proves nothing yet.
    pass(ms(110)).await;
    assert_eq!((world.ptu.times(), world.gate.waiting()), (vec![0, 100], 1));
    tasks[0].abort();
    let (_, took) = timed(all_ok(tasks.into_iter().skip(1).collect())).await;
    assert_eq!((took, world.ptu.times()), (ms(0), vec![0, 100, 110]));
    assert_eq!((world.gate.waiting(), world.ptu.under_way()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_finished_future_that_is_kept_does_not_hold_up_the_others() {
    for last in [Answer::ok(), Answer::status(500), Answer::broken()] {
        let world = World::playing([Answer::refused(100), last, Answer::ok()], patient);
        let mut kept = Box::pin(world.send(numbered(0)));
        assert!(poll_immediate(&mut kept).await.is_none());
        let next = world.begin([1]).await;
        drop((&mut kept).await);
        let (_, took) = timed(all_ok(next)).await;
        assert_eq!((took, world.ptu.times()), (ms(0), vec![0, 100, 100]));
        assert_eq!(world.gate.waiting(), 0);
        drop(kept);
    }
}

#[tokio::test(start_paused = true)]
async fn urgent_ranks_go_first_and_equals_in_order() {
    let world = World::spaced(100, 0, |layer| patient(layer).class(Class::new("batch").rank(1)));
    let mut tasks = world.begin([0]).await;
    for number in 1..5 {
        tasks.push(tokio::spawn(world.send(with(Priority::from("batch"), numbered(number)))));
    }
    pass(ms(50)).await;
    tasks.extend(world.begin(5..9).await);
    all_ok(tasks).await;
    assert_eq!(world.admitted(), [0, 5, 6, 7, 8, 1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_class_has_its_own_max_wait_and_an_unknown_one_the_layers() {
    let quick = Class::new("quick").max_wait(ms(200));
    for (name, spilled, time) in [("quick", true, 0), ("unheard-of", false, 300)] {
        let world = World::playing([Answer::refused(300), Answer::ok()], |layer| {
            layer.class(quick.clone())
        });
        let (response, took) = world.ask(with(Priority::from(name), request())).await;
        assert_eq!((account(&response).spilled(), took), (spilled, time), "{name}");
    }
    let world = World::playing([Answer::refused(300), Answer::ok()], |layer| layer.class(quick));
    let both = with(MaxWait(ms(2_000)), with(Priority::from("quick"), request()));
    let (response, took) = world.ask(both).await;
    assert_eq!((account(&response).spilled(), took), (false, 300), "a request's own goes first");
}

#[tokio::test(start_paused = true)]
async fn a_class_that_never_spills_gets_the_refusal_with_its_hint() {
    let world = World::spaced(10_000, 0, |layer| layer.class(Class::new("cheap").never_spill()));
    let cheap = || with(Priority::from("cheap"), request());
    assert_eq!(world.ask(cheap()).await.0.status(), StatusCode::OK);
    for (at, left) in [(0, "10000"), (1_000, "9000")] {
        pass(ms(at)).await;
        let (response, took) = world.ask(cheap()).await;
        assert_eq!((response.status(), took), (StatusCode::TOO_MANY_REQUESTS, 0));
        assert_eq!(header(&response, "retry-after-ms"), Some(left));
    }
    pass(ms(6_000)).await;
    let (response, took) = world.ask(cheap()).await;
    assert_eq!((response.status(), took), (StatusCode::OK, 3_000), "it waits when that can win");
    assert_eq!((world.standard.len(), world.gate.waiting()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_a_pool_remembers_does_not_keep_the_gate_from_asking_the_ptu() {
    let leaf = Leaf::new(|seen| match seen.at.as_millis() as u64 {
        // Answers give back what no hint includes.
        at if at < 200 => Answer::refused(3_000 - at),
        _ => Answer::ok(),
    });
    let tier = |name: &str| {
        let backend = Backend::new(name, format!("https://{name}.example")).unwrap().api_key("key");
        RegionRotateLayer::new(BackendPool::new([backend]).unwrap())
    };
    let layer = SmartFallbackLayer::new(tier("ptu"), tier("standard"));
    // A request that may not spill makes a last attempt, which the pool refuses from memory.
    let service = layer.spill_budget(SpillBudget::requests(0, ms(60_000))).layer(leaf.clone());
    let waits = tokio::spawn(timed(service.clone().oneshot(request())));
    for _ in 0..10 {
        pass(ms(50)).await;
        let brief = service.clone().oneshot(with(MaxWait(ms(20)), request())).await.unwrap();
        assert!(leaf.len() > 1 || brief.status() == StatusCode::TOO_MANY_REQUESTS);
    }
    let (served, took) = waits.await.unwrap();
    assert!(served.unwrap().status().is_success());
    assert!(took <= ms(400), "{took:?} after {:?}", leaf.times());
}

#[tokio::test(start_paused = true)]
async fn times_that_a_pool_assumes_do_not_raise_the_rate_that_is_learned() {
    let mut rates = Vec::new();
    for is_hinted in [true, false] {
        let open_at = Mutex::new(Duration::ZERO);
        let leaf = Leaf::new(move |seen| {
            let mut open_at = open_at.lock().unwrap();
            match open_at.checked_sub(seen.at).filter(|left| !left.is_zero()) {
                Some(left) if is_hinted => Answer::refused(left.as_micros().div_ceil(1_000) as u64),
                Some(_) => Answer::status(429),
                None => {
                    *open_at = seen.at + ms(700);
                    Answer::ok()
                }
            }
        });
        let ptu = Backend::new("ptu", "https://ptu.example").unwrap().api_key("key");
        let ptu = RegionRotateLayer::new(BackendPool::new([ptu]).unwrap());
        let gate = Gate::new();
        let layer = SmartFallbackLayer::alone(ptu).gate(gate.clone());
        let service = layer.max_wait(Duration::from_secs(60)).layer(leaf);
        let calls = (0..20).map(|_| service.clone().oneshot(request()));
        assert!(join_all(calls).await.into_iter().all(|reply| reply.unwrap().status() == 200));
        rates.push(gate.rate().expect("what was admitted in that time"));
    }
    // Without hints the PTU idles now and then, which counts as time to drain.
    assert!((0.6..1.1).contains(&(rates[1] / rates[0])), "{rates:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_spill_goes_back_to_wait_and_is_served_when_others_give_up() {
    let standard = Leaf::playing([Answer::refused(60_000).after(100)]);
    let world = World::spaced_before(standard, 100, 0, patient);
    let ahead = world.begin(0..200).await;
    pass(ms(10_000)).await;
    assert!(world.gate.is_pacing() && world.gate.waiting() > 50, "{:?}", world.gate);
    let waiting = world.gate.waiting();
    let late = tokio::spawn(timed(world.send(with(MaxWait(ms(2_000)), numbered(999)))));
    pass(ms(50)).await;
    assert_eq!(world.standard.len(), 1, "its wait is predicted to be too long");
    pass(ms(100)).await;
    assert!(world.gate.waiting() >= waiting - 1, "it waits behind the others");
    ahead[112..].iter().for_each(JoinHandle::abort);
    let (reply, took) = late.await.unwrap();
    let response = reply.unwrap();
    assert_eq!(
        (response.status(), account(&response).backend()),
        (StatusCode::OK, Some("primary"))
    );
    assert!((ms(1_000)..ms(2_000)).contains(&took), "{took:?}");
    assert_eq!(world.standard.len(), 1);
}

fn one_spill(when_spent: WhenSpent, mode: Mode) -> impl FnOnce(Layers) -> Layers {
    let budget = SpillBudget::requests(1, ms(5_000)).when_spent(when_spent);
    move |layer| {
        let gate = Gate::new().mode(mode);
        layer.max_wait(ms(500)).gate(gate).spill_budget(budget)
    }
}

const MODES: [Mode; 3] = [Mode::Adaptive, Mode::Shared, Mode::Plain];

#[tokio::test(start_paused = true)]
async fn a_spent_budget_refuses_with_the_time_of_the_ptu_or_of_the_next_window() {
    for mode in MODES {
        for (said, told) in [(9_000, "5000"), (3_000, "3000")] {
            let world = World::playing([Answer::refused(said)], one_spill(WhenSpent::Refuse, mode));
            assert!(account(&world.ask(request()).await.0).spilled());
            let (response, took) = world.ask(request()).await;
            assert_eq!((response.status(), took), (StatusCode::TOO_MANY_REQUESTS, 0), "{mode:?}");
            assert_eq!(header(&response, "retry-after-ms"), Some(told), "{mode:?}");
            pass(ms(5_000)).await;
            assert!(account(&world.ask(request()).await.0).spilled(), "in the next window");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_used_up_for_good_at_the_ptu_comes_back_for_the_next_window() {
    let quota = || Answer::refused(20).because(Reason::Quota, Hint::After(ms(20)));
    for answer in [quota(), Answer::refused(20).with("x-should-retry", "false")] {
        let world = World::playing([answer], one_spill(WhenSpent::Refuse, Mode::Adaptive));
        assert!(account(&world.ask(request()).await.0).spilled());
        pass(ms(100)).await;
        let (response, took) = world.ask(request()).await;
        assert_eq!((response.status(), took), (StatusCode::TOO_MANY_REQUESTS, 0));
        assert_eq!(header(&response, "retry-after-ms"), Some("4900"));
        assert_eq!(header(&response, "x-should-retry"), Some("true"));
    }
}

/// Twice as much arrives as a PTU serves whose rate is known, and nothing may be spilled.
#[tokio::test(start_paused = true)]
async fn a_request_that_the_ptu_cannot_serve_in_time_is_refused_at_once_when_the_budget_is_spent() {
    let budget = SpillBudget::requests(0, Duration::from_secs(3_600));
    let configure = |layer: Layers| layer.max_wait(ms(2_000)).spill_budget(budget);
    let world = World::spaced(100, 0, configure);
    let mut calls = Vec::new();
    for number in 0..400 {
        let call = world.send(numbered(number));
        calls.push(tokio::spawn(async move { timed(call).await }));
        pass(ms(50)).await;
    }
    let replies = join_all(calls).await.into_iter().map(Result::unwrap).enumerate();
    let (mut served, mut waited, mut hinted) = (0, 0, 0);
    let learning = 50;
    for (number, (reply, took)) in replies.skip(learning) {
        let reply = reply.unwrap();
        assert!(took <= ms(2_001), "{number}: {took:?}");
        if reply.status().is_success() {
            served += 1;
            continue;
        }
        waited += usize::from(took > ms(1));
        let wait: u64 = header(&reply, "retry-after-ms").unwrap().parse().unwrap();
        hinted += usize::from((1_500..=2_500).contains(&wait));
    }
    let refused = 400 - learning - served;
    assert!(served >= 174, "{served}: the PTU is as busy as ever");
    assert!(waited * 10 <= refused, "{waited} of {refused} were refused after a wait");
    assert!(hinted * 10 >= refused * 8, "{hinted} of {refused} were told the length of the queue");
}

#[tokio::test(start_paused = true)]
async fn a_spent_budget_waits_for_the_ptu() {
    for mode in MODES {
        let world = World::spaced(2_000, 0, one_spill(WhenSpent::Wait, mode));
        assert!(!account(&world.ask(request()).await.0).spilled());
        assert!(account(&world.ask(request()).await.0).spilled());
        let (response, took) = world.ask(request()).await;
        assert_eq!((response.status(), took), (StatusCode::OK, 2_000), "{mode:?}");
        assert_eq!(world.standard.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_time_is_up_keeps_its_place_while_the_budget_is_spent() {
    let budget = SpillBudget::requests(1, Duration::from_secs(3_600)).when_spent(WhenSpent::Wait);
    let world = World::spaced(1_000, 0, |layer| layer.spill_budget(budget));
    let waiting = |number, wait| world.send(with(MaxWait(ms(wait)), numbered(number)));
    let open = world.send(numbered(0)).await.unwrap();
    assert_eq!(open.status(), StatusCode::OK);
    assert!(account(&waiting(1, 0).await.unwrap()).spilled());
    let mut calls = Vec::new();
    // The second of them is cut at 1.6 s, behind the first and before the third.
    for (number, wait) in [(2, 8_000), (3, 1_500), (4, 8_000)] {
        pass(ms(50)).await;
        calls.push(tokio::spawn(waiting(number, wait)));
    }
    all_ok(calls).await;
    assert_eq!((world.admitted(), world.standard.len()), (vec![0, 2, 3, 4], 1));
}

#[tokio::test(start_paused = true)]
async fn a_spent_budget_waits_for_the_next_window_when_the_ptu_stays_closed() {
    for mode in MODES {
        let world = World::playing([Answer::refused(9_000)], one_spill(WhenSpent::Wait, mode));
        assert!(account(&world.ask(request()).await.0).spilled());
        pass(ms(1_000)).await;
        let (response, took) = world.ask(request()).await;
        assert_eq!((account(&response).spilled(), took), (true, 4_000), "{mode:?}");
        assert!(world.ptu.len() <= 4, "{mode:?}: {} attempts", world.ptu.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_bounds_the_wait_for_the_next_window() {
    for mode in MODES {
        let world = World::playing([Answer::refused(9_000)], one_spill(WhenSpent::Wait, mode));
        assert!(account(&world.ask(request()).await.0).spilled());
        let deadline = Deadline(clock::now().into_std() + ms(2_000));
        let (response, took) = world.ask(with(deadline, request())).await;
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS, "{mode:?}");
        assert!(took <= 2_001, "{mode:?}: {took} ms");
        assert_eq!((world.standard.len(), world.gate.waiting()), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_makes_an_adaptive_gate_remember_for_all_and_leaves_others_alone() {
    for (mode, attempts) in [(Mode::Adaptive, 2), (Mode::Shared, 2), (Mode::Plain, 3)] {
        let ptu = Leaf::playing([Answer::refused(1_000), Answer::refused(1_000), Answer::ok()]);
        let standard = Leaf::playing([Answer::ok()]);
        let service = SmartFallbackLayer::new(Put(ptu.clone()), Put(standard.clone()))
            .max_wait(ms(500))
            .gate(Gate::new().mode(mode))
            .policy(WaitThenSpill)
            .layer(());
        for _ in 0..2 {
            let response = service.clone().oneshot(request()).await.unwrap();
            assert!(account(&response).spilled());
        }
        pass(ms(1_000)).await;
        service.clone().oneshot(request()).await.unwrap();
        assert_eq!(ptu.len(), attempts, "{mode:?}");
    }
}
