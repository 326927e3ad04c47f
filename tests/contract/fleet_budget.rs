//! A spill budget that several stacks share through a fleet's store.

use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::future::{BoxFuture, join_all, poll_immediate};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use tower::{Layer, ServiceExt};
use tower_spillover::{
    Backend, BackendPool, Fleet, RegionRotateLayer, Served, SmartFallback, SmartFallbackLayer,
    fleet::{Allowance, Local, Name, Store, Taken, Unreachable},
    region_rotate::RegionRotate,
    served::Why,
    smart_fallback::{SpillBudget, WhenSpent},
};

use crate::{
    clock::{self, ms, pass, timed},
    leaf::{Answer, Leaf, request},
};

type Stack = SmartFallback<RegionRotate<Leaf>, RegionRotate<Leaf>>;

const MINUTE: Duration = Duration::from_secs(60);
/// The fleet's default.
const TIMEOUT: Duration = Duration::from_millis(50);

fn fleet(store: impl Store) -> Fleet {
    Fleet::new("prod", store).expect("a name")
}

fn requests(limit: u32, fleet: &Fleet) -> SpillBudget {
    SpillBudget::requests(limit, MINUTE).fleet(fleet, "gpt-4o")
}

/// A PTU that refuses for an hour, and a fallback.
fn stack(budget: SpillBudget, fallback: Answer) -> (Stack, Arc<AtomicUsize>) {
    let tier = |name: &str| {
        let backend = Backend::new(name, format!("https://{name}.example")).unwrap();
        RegionRotateLayer::new(BackendPool::new([backend.api_key("key")]).unwrap())
    };
    let asked_primary = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked_primary);
    let leaf = Leaf::new(move |seen| match seen.host() {
        "ptu.example" => {
            count.fetch_add(1, Ordering::Relaxed);
            Answer::refused(3_600_000)
        }
        _ => fallback.clone(),
    });
    let layer = SmartFallbackLayer::new(tier("ptu"), tier("standard"));
    (layer.spill_budget(budget).layer(leaf), asked_primary)
}

fn ask() -> Request<Full<Bytes>> {
    request().map(|_| Full::from(r#"{"messages":[],"max_tokens":1000}"#))
}

fn answer() -> Answer {
    Answer::ok().telling(r#"{"usage":{"prompt_tokens":50,"completion_tokens":20}}"#.to_owned())
}

async fn call(stack: &Stack) -> (StatusCode, Option<String>) {
    let response = stack.clone().oneshot(ask()).await.expect("no error");
    let after = response.headers().get("retry-after-ms");
    let after = after.map(|value| value.to_str().expect("a number").to_owned());
    (response.status(), after)
}

async fn served(stacks: &[Stack], each: usize) -> usize {
    let calls = (0..each).flat_map(|_| stacks).map(call);
    let answers = join_all(calls).await;
    answers.iter().filter(|(status, _)| status.is_success()).count()
}

/// A store that does not answer, or answers late.
#[derive(Clone, Debug, Default)]
struct Silent {
    inner: Local,
    is_silent: Arc<AtomicBool>,
    calls: Arc<Mutex<Vec<(Name, u64)>>>,
}

impl Store for Silent {
    fn join(&self, fleet: &str) {
        self.inner.join(fleet);
    }

    fn replicas(&self, fleet: &str) -> u32 {
        self.inner.replicas(fleet)
    }

    fn take(
        &self,
        name: &Name,
        from: Allowance,
        amount: u64,
    ) -> BoxFuture<'static, Result<Taken, Unreachable>> {
        self.calls.lock().unwrap().push((name.clone(), amount));
        match self.is_silent.load(Ordering::Relaxed) {
            true => Box::pin(pending()),
            false => self.inner.take(name, from, amount),
        }
    }

    fn correct(&self, name: &Name, window: u64, change: i64) {
        self.inner.correct(name, window, change);
    }
}

#[tokio::test(start_paused = true)]
async fn four_stacks_together_spill_what_the_budget_allows_and_no_more() {
    let store = Local::new();
    let stacks = [(); 4].map(|()| stack(requests(100, &fleet(store.clone())), answer()).0);
    pass(ms(1)).await;
    assert_eq!(served(&stacks, 125).await, 100);
    pass(ms(10_000)).await;
    for stack in &stacks {
        let (status, after) = call(stack).await;
        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(after.as_deref(), Some("50000"), "the next window of the fleet");
    }
    pass(ms(50_000)).await;
    assert_eq!(served(&stacks, 125).await, 100, "the next window");
}

#[tokio::test(start_paused = true)]
async fn budgets_of_other_names_and_units_are_apart() {
    let fleet = fleet(Local::new());
    let budgets = [
        requests(1, &fleet),
        SpillBudget::requests(1, MINUTE).fleet(&fleet, "gpt-4o-mini"),
        SpillBudget::tokens(1, MINUTE).fleet(&fleet, "gpt-4o"),
    ];
    for budget in budgets {
        assert_eq!(served(&[stack(budget, answer()).0], 3).await, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn without_the_store_all_together_spill_at_most_the_limit() {
    let store = Local::new();
    let budgets = [(); 4].map(|()| requests(102, &fleet(store.clone())));
    let stacks = budgets.map(|budget| stack(budget, answer()).0);
    store.set_up(false);
    assert_eq!(served(&stacks, 125).await, 4 * 25, "a quarter each, rounded down");
    let (status, _) = call(&stacks[0]).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_loses_the_store_spills_its_share_of_what_was_left() {
    let store = Local::new();
    let budgets = [(); 4].map(|()| requests(100, &fleet(store.clone())));
    let stacks = budgets.map(|budget| stack(budget, answer()).0);
    // The first one has most of the traffic, and every one knows what is left.
    assert_eq!(served(&stacks[..1], 77).await, 77);
    assert_eq!(served(&stacks, 1).await, 4);
    store.set_up(false);
    // They have seen 22, 21, 20 and 19 left.
    assert_eq!(served(&stacks, 50).await, 5 + 5 + 5 + 4);
    store.set_up(true);
    pass(MINUTE).await;
    assert_eq!(served(&stacks, 50).await, 100);
}

#[tokio::test(start_paused = true)]
async fn a_silent_store_holds_a_spill_for_the_timeout_and_then_the_process_decides() {
    let store = Silent::default();
    store.is_silent.store(true, Ordering::Relaxed);
    let fleets = [fleet(store.clone()), fleet(store.clone())];
    let (stack, asked_primary) = stack(requests(2, &fleets[0]), answer());
    let (response, took) = timed(stack.clone().oneshot(ask())).await;
    let response = response.unwrap();
    assert_eq!((response.status(), took), (StatusCode::OK, TIMEOUT));
    let account: &Served = response.extensions().get().unwrap();
    assert_eq!(account.waited(), TIMEOUT);
    let ((status, after), took) = timed(call(&stack)).await;
    let refused = StatusCode::TOO_MANY_REQUESTS;
    assert_eq!((status, took), (refused, Duration::ZERO), "half of two, without another call");
    assert_eq!(after.as_deref(), Some("60000"), "the window of this process");
    pass(TIMEOUT).await;
    let ((status, after), took) = timed(call(&stack)).await;
    assert_eq!((status, took), (refused, TIMEOUT), "it may answer by now");
    assert_eq!(after.as_deref(), Some("59900"));
    assert_eq!(asked_primary.load(Ordering::Relaxed), 1, "the gate knew that it refuses");
    let stats = &fleets[0].stats().operations[0];
    assert_eq!((stats.ok, stats.timeout, stats.skipped), (0, 2, 1));
    assert_eq!(stats.time, 2 * TIMEOUT);
    drop(fleets);
}

#[tokio::test(start_paused = true)]
async fn another_timeout_can_be_set() {
    let store = Silent::default();
    store.is_silent.store(true, Ordering::Relaxed);
    let fleet = fleet(store).timeout(ms(7));
    let (stack, _) = stack(requests(1, &fleet), answer());
    assert_eq!(timed(call(&stack)).await.1, ms(7));
}

#[tokio::test(start_paused = true)]
async fn a_refused_spill_returns_the_refusal_of_the_primary_without_another_attempt() {
    let fleet = fleet(Local::new());
    for when_spent in [WhenSpent::Refuse, WhenSpent::Wait] {
        let budget = requests(0, &fleet).when_spent(when_spent);
        let (stack, asked_primary) = stack(budget, answer());
        let mut request = ask();
        request
            .extensions_mut()
            .insert(tower_spillover::Deadline((clock::now() + MINUTE / 2).into_std()));
        let response = stack.oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        let account: &Served = response.extensions().get().unwrap();
        assert_eq!(account.why_refused(), Some(Why::SpillBudget), "{when_spent:?}");
        assert_eq!(asked_primary.load(Ordering::Relaxed), 1, "{when_spent:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_dropped_while_it_asks_or_is_served_gives_its_charge_back() {
    let store = Silent::default();
    let fleets = [fleet(store.clone()), fleet(store.clone())];
    let (late, _) = stack(requests(1, &fleets[0]), answer().after(1_000));
    let (other, _) = stack(requests(1, &fleets[1]), answer());
    store.is_silent.store(true, Ordering::Relaxed);
    let mut asking = Box::pin(late.clone().oneshot(ask()));
    assert!(poll_immediate(&mut asking).await.is_none());
    assert_eq!(store.calls.lock().unwrap().len(), 1);
    drop(asking);
    store.is_silent.store(false, Ordering::Relaxed);
    let mut calling = Box::pin(late.oneshot(ask()));
    assert!(poll_immediate(&mut calling).await.is_none());
    assert_eq!(call(&other).await.0, StatusCode::TOO_MANY_REQUESTS, "the budget is taken");
    drop(calling);
    assert_eq!(call(&other).await.0, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_fallback_gives_its_charge_back_to_the_fleet() {
    let store = Local::new();
    let refuses = stack(requests(1, &fleet(store.clone())), Answer::refused(60_000)).0;
    let serves = stack(requests(1, &fleet(store)), answer()).0;
    for _ in 0..3 {
        assert_eq!(call(&refuses).await.0, StatusCode::TOO_MANY_REQUESTS);
    }
    assert_eq!(call(&serves).await.0, StatusCode::OK);
    assert_eq!(call(&serves).await.0, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test(start_paused = true)]
async fn tokens_are_charged_by_estimate_and_corrected_by_the_usage_for_the_whole_fleet() {
    let store = Silent::default();
    // Two estimates of 3,001 fit, the third one crosses the limit.
    let limit = 6_500;
    let budgets =
        [(); 2].map(|()| SpillBudget::tokens(limit, MINUTE).fleet(&fleet(store.clone()), "gpt-4o"));
    let [(first, _), (second, _)] = budgets.clone().map(|budget| stack(budget, answer()));
    let open = join_all([&first, &second, &first].map(|it| it.clone().oneshot(ask()))).await;
    assert!(store.calls.lock().unwrap().iter().all(|(_, amount)| *amount == 3_001));
    assert_eq!(call(&second).await.0, StatusCode::TOO_MANY_REQUESTS);
    for response in open {
        response.unwrap().into_body().collect().await.unwrap();
    }
    let response = second.clone().oneshot(ask()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "the estimates were too high");
    let left = limit as f64 - 3.0 * 110.0 - 3_001.0;
    assert_eq!((budgets[1].left(), budgets[1].under_way()), (left, 3_001.0));
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_for_the_budget_goes_when_another_process_returns_something() {
    let store = Local::new();
    let holder = stack(requests(1, &fleet(store.clone())), answer().after(20_000)).0;
    let budget = requests(1, &fleet(store)).when_spent(WhenSpent::Wait);
    let waits = stack(budget, answer()).0;
    let mut held = Box::pin(holder.oneshot(ask()));
    assert!(poll_immediate(&mut held).await.is_none());
    let waiting = tokio::spawn(timed(async move { call(&waits).await }));
    pass(ms(5_500)).await;
    drop(held);
    let ((status, _), took) = waiting.await.unwrap();
    assert_eq!(status, StatusCode::OK);
    assert!((ms(5_500)..=ms(6_600)).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_primary_failed_asks_the_fleet_too() {
    let fleet = fleet(Local::new());
    let primary = Leaf::new(|_| Answer::status(500));
    let fallback = Leaf::new(|_| answer());
    let layer = SmartFallbackLayer::new(crate::leaf::Put(primary), crate::leaf::Put(fallback));
    let service = layer.spill_budget(requests(2, &fleet)).layer(());
    // The second one goes to the fallback first, because the primary has just failed.
    for status in [200, 200, 500, 500] {
        let response = service.clone().oneshot(ask()).await.unwrap();
        assert_eq!(response.status(), status);
    }
    assert_eq!(fleet.stats().operations[0].ok, 4);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_implements_nothing_shares_nothing() {
    #[derive(Debug)]
    struct Nothing;
    impl Store for Nothing {}
    let fleet = fleet(Nothing);
    let budget = requests(3, &fleet);
    assert_eq!(served(&[stack(budget, answer()).0], 10).await, 3);
    assert_eq!(fleet.replicas(), 1);
}
