//! Why a request waited, spilled or was refused, according to its account.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::{Layer, Service, ServiceExt, layer::util::Identity};
use tower_spillover::{
    AttemptBudget, Backend, BackendPool, FirstTokenLayer, Gate, MaxWait, Priority,
    RegionRotateLayer, ResponseBody, Served, SmartFallbackLayer, StickTo, Sticky, WaitLayer,
    classify::{Hint, Reason},
    first_token::Limit,
    gate::Mode,
    policy::{FallbackFacts, FallbackPolicy, MoveOn, Next, RetryBudget},
    served::Why,
    smart_fallback::{Class, SpillBudget, WhenSpent},
};

use crate::{
    clock::{ms, pass},
    leaf::{Answer, Broken, Leaf, account, every_connect, request},
};

type Ask = Request<Full<Bytes>>;
type Tiers = SmartFallbackLayer<RegionRotateLayer, RegionRotateLayer>;

fn pool<const N: usize>(names: [&str; N]) -> RegionRotateLayer {
    let backend = |name| Backend::new(name, format!("https://{name}.example")).unwrap();
    let pool = BackendPool::new(names.map(|name| backend(name).api_key("key"))).unwrap();
    pool.force_start(names[0]).unwrap();
    RegionRotateLayer::new(pool)
}

fn tiers() -> Tiers {
    SmartFallbackLayer::new(pool(["ptu"]), pool(["standard"]))
}

/// A client whose PTU answers so, and whose Standard serves.
fn ptu(answer: impl Fn() -> Answer + Send + Sync + 'static) -> Leaf {
    Leaf::new(move |seen| match seen.host() {
        "ptu.example" => answer(),
        _ => Answer::ok(),
    })
}

async fn served<S>(service: &S, request: Ask) -> Served
where
    S: Service<Ask, Response = Response<ResponseBody<Full<Bytes>>>, Error = Broken> + Clone,
{
    account(&service.clone().oneshot(request).await.unwrap()).clone()
}

/// The reasons of one request: of its wait, its spill and its refusal.
fn reasons(served: &Served) -> [String; 3] {
    [served.why_waited(), served.why_spilled(), served.why_refused()]
        .map(|why| why.map(|why| why.to_string()).unwrap_or_default())
}

async fn of<S>(service: &S, request: Ask) -> [String; 3]
where
    S: Service<Ask, Response = Response<ResponseBody<Full<Bytes>>>, Error = Broken> + Clone,
{
    reasons(&served(service, request).await)
}

fn with<T: Clone + Send + Sync + 'static>(extension: T) -> Ask {
    let mut request = request();
    request.extensions_mut().insert(extension);
    request
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_came_at_once_has_none() {
    let served = served(&tiers().layer(ptu(Answer::ok)), request()).await;
    assert_eq!((reasons(&served), served.why()), ([""; 3].map(str::to_owned), None));
}

#[tokio::test(start_paused = true)]
async fn a_spill_says_what_was_left_for_the_hint() {
    for mode in [Mode::Adaptive, Mode::Shared, Mode::Plain] {
        let service = tiers().gate(Gate::new().mode(mode)).layer(ptu(|| Answer::refused(20_000)));
        assert_eq!(of(&service, request()).await, ["", "hint (20s > 4s)", ""], "{mode:?}");
        let again = of(&service, with(MaxWait(ms(900)))).await;
        let expected = match mode {
            Mode::Adaptive => "queue (20s > 900ms)",
            _ => "hint (20s > 900ms)",
        };
        assert_eq!(again, ["", expected, ""], "{mode:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_says_what_was_left_for_it() {
    for (mode, expected) in
        [(Mode::Adaptive, "queue (43ms of 4s)"), (Mode::Plain, "hint (43ms of 4s)")]
    {
        let leaf = Leaf::playing([Answer::refused(43), Answer::ok()]);
        let service = tiers().gate(Gate::new().mode(mode)).layer(leaf);
        assert_eq!(of(&service, request()).await, [expected, "", ""]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waited_and_lost_says_to_what() {
    // It refuses repeatedly with a hint that always fits.
    let service = tiers().max_wait(ms(900)).layer(ptu(|| Answer::refused(100)));
    let served = served(&service, request()).await;
    let expected = ["queue (400ms of 500ms)", "queue (490ms > 200ms)", ""];
    assert_eq!((reasons(&served), served.waited()), (expected.map(str::to_owned), ms(700)));
    assert_eq!(served.why(), served.why_spilled());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_never_waits_says_so() {
    let service = tiers().class(Class::new("now").max_wait(Duration::ZERO));
    let service = service.layer(ptu(|| Answer::refused(43)));
    for _ in 0..2 {
        let now = of(&service, with(Priority::from("now"))).await;
        assert_eq!(now, ["", "never-waits", ""]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_never_waits_says_so_of_a_hint_of_zero_too() {
    for mode in [Mode::Adaptive, Mode::Shared, Mode::Plain] {
        let bare = SmartFallbackLayer::new(Identity::new(), Identity::new());
        let service = bare.gate(Gate::new().mode(mode)).max_wait(Duration::ZERO);
        let service = service.layer(Leaf::playing([Answer::refused(0), Answer::ok()]));
        let answer = service.oneshot(request()).await.unwrap();
        assert_eq!(reasons(account(&answer)), ["", "never-waits", ""], "{mode:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_not_spill_is_refused_for_that() {
    let class = Class::new("batch").never_spill();
    let service = tiers().class(class).layer(ptu(|| Answer::refused(20_000)));
    for _ in 0..2 {
        let batch = of(&service, with(Priority::from("batch"))).await;
        assert_eq!(batch, ["", "", "never-spills"]);
    }
    let alone = SmartFallbackLayer::alone(pool(["ptu"])).layer(ptu(|| Answer::refused(20_000)));
    assert_eq!(of(&alone, request()).await, ["", "", "hint (20s > 4s)"]);
}

#[tokio::test(start_paused = true)]
async fn the_reason_of_the_attempt_is_that_of_the_spill() {
    for (answer, expected) in [
        (Answer::refused(20).because(Reason::Quota, Hint::None), "quota"),
        (Answer::refused(20).with("x-should-retry", "false"), "forbidden"),
        (Answer::status(400).because(Reason::ContextLength, Hint::None), "context-length"),
        (Answer::status(400).because(Reason::ServiceTier, Hint::None), "service-tier"),
        (Answer::status(401), "misconfigured"),
        (Answer::status(500), "failed"),
    ] {
        let service = tiers().layer(ptu(move || answer.clone()));
        assert_eq!(of(&service, request()).await, ["", expected, ""]);
    }
    let service = tiers().layer(ptu(|| Answer::ok().with("x-ms-is-spilled-over", "true")));
    assert_eq!(of(&service, request()).await, ["", "by-azure", ""]);
}

#[tokio::test(start_paused = true)]
async fn a_used_up_quota_is_remembered_by_its_name() {
    let quota = || Answer::refused(20).because(Reason::Quota, Hint::None);
    let service = tiers().layer(ptu(quota));
    for _ in 0..2 {
        assert_eq!(of(&service, request()).await, ["", "quota", ""]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_goes_on_failing_is_asked_second_for_that() {
    let move_on = every_connect();
    let service = tiers().move_on(move_on).layer(ptu(Answer::unreachable));
    let mut labels = Vec::new();
    for _ in 0..6 {
        labels.push(served(&service, request()).await.why_spilled().unwrap().label());
    }
    assert_eq!((labels[0], labels[5]), ("failed", "failing"), "{labels:?}");
}

#[tokio::test(start_paused = true)]
async fn budgets_that_are_spent_refuse_by_their_names() {
    let budget = SpillBudget::requests(0, Duration::from_secs(60));
    let service = tiers().spill_budget(budget).layer(ptu(|| Answer::refused(20_000)));
    for _ in 0..2 {
        assert_eq!(of(&service, request()).await, ["", "", "spill-budget"]);
    }
    let none = MoveOn::new().budget(RetryBudget::new(0, 0.0));
    let service = tiers().move_on(none.clone()).layer(ptu(|| Answer::status(500)));
    assert_eq!(of(&service, request()).await, ["", "", "retry-budget"]);
    let service = pool(["ptu", "other"]).move_on(none).layer(ptu(|| Answer::status(500)));
    assert_eq!(of(&service, request()).await, ["", "", "retry-budget"]);
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_the_budget_is_a_wait_for_the_budget() {
    let budget = SpillBudget::requests(1, Duration::from_secs(2)).when_spent(WhenSpent::Wait);
    let service = tiers().spill_budget(budget).layer(ptu(|| Answer::refused(20_000)));
    assert_eq!(of(&service, request()).await, ["", "hint (20s > 4s)", ""]);
    let [waited, spilled, refused] = of(&service, with(MaxWait(ms(500)))).await;
    assert_eq!((&*waited, &*refused), ("spill-budget", ""));
    assert_eq!(spilled, "hint (20s > 0s)", "its own time was up before");
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_sent_once_more_is_refused_for_that() {
    let refused = || ptu(|| Answer::refused(20_000));
    let one = || with(AttemptBudget::at_most(1));
    assert_eq!(of(&tiers().layer(refused()), one()).await, ["", "", "attempts"]);
    assert_eq!(of(&pool(["ptu", "b"]).layer(refused()), one()).await, ["", "", "attempts"]);
    let one = pool(["ptu", "b"]).max_attempts(1).layer(refused());
    assert_eq!(of(&one, request()).await, ["", "", "attempts"]);
    let patient = WaitLayer::new().layer(pool(["ptu"]).layer(ptu(|| Answer::refused(50))));
    assert_eq!(of(&patient, with(AttemptBudget::at_most(1))).await, ["", "", "attempts"]);
}

#[tokio::test(start_paused = true)]
async fn where_both_tiers_refuse_the_fallback_has_the_last_word() {
    let both = Leaf::new(|_| Answer::refused(20_000));
    let service = tiers().layer(both);
    let expected = ["", "hint (20s > 4s)", "fallback-closed"];
    assert_eq!(of(&service, request()).await, expected);

    // It reopens in time, and the request has waited for that.
    let leaf = Leaf::new(|seen| match (seen.host(), seen.at < ms(500)) {
        ("ptu.example", _) => Answer::refused(20_000),
        (_, true) => Answer::refused(500),
        _ => Answer::ok(),
    });
    let service = tiers().layer(leaf);
    let expected = ["fallback-closed", "hint (20s > 4s)", ""];
    assert_eq!(of(&service, request()).await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_pool_says_when_the_first_of_it_reopens() {
    let service = pool(["a", "b"]).layer(Leaf::new(|seen| match seen.host() {
        "a.example" => Answer::refused(9_000),
        _ => Answer::refused(30_000),
    }));
    assert_eq!(of(&service, request()).await, ["", "", "all-closed (9s > 0s)"]);
    pass(ms(2_500)).await;
    assert_eq!(of(&service, request()).await, ["", "", "all-closed (6.5s > 0s)"]);
}

#[tokio::test(start_paused = true)]
async fn a_rotation_is_for_what_the_last_other_backend_said() {
    let answers = [
        (Answer::refused(20), "rate"),
        (Answer::refused(20).because(Reason::Capacity, Hint::None), "capacity"),
        (Answer::status(500), "failed"),
        (Answer::status(403), "misconfigured"),
    ];
    for (answer, expected) in answers {
        let service = pool(["ptu", "other"]).layer(ptu(move || answer.clone()));
        let served = served(&service, request()).await;
        assert_eq!(served.why().map(|why| why.to_string()), Some(expected.to_owned()));
        assert_eq!(reasons(&served), ["", "", ""], "it neither waited nor spilled");
    }
}

#[tokio::test(start_paused = true)]
async fn what_belongs_to_one_resource_says_so() {
    let service = pool(["ptu", "other"]).sticky(Sticky::new());
    let service = service.layer(ptu(|| Answer::refused(20_000)));
    assert_eq!(of(&service, with(StickTo::from("ptu"))).await, ["", "", "sticky"]);
    let service = tiers().sticky(Sticky::new()).layer(ptu(|| Answer::refused(20_000)));
    assert_eq!(of(&service, with(StickTo::from("ptu"))).await, ["", "", "sticky"]);
    assert_eq!(of(&service, with(StickTo::from("standard"))).await, ["", "sticky", ""]);
}

#[tokio::test(start_paused = true)]
async fn a_late_first_token_says_so() {
    let leaf = Leaf::new(|seen| match seen.host() {
        "ptu.example" => Answer::ok().after(60_000),
        _ => Answer::ok(),
    });
    let limit = FirstTokenLayer::new(Limit::move_on_after(ms(500)));
    let rotating = limit.layer(pool(["ptu", "other"]).layer(leaf.clone()));
    assert_eq!(served(&rotating, request()).await.why(), Some(Why::FirstTokenLate));
    let spilling = limit.layer(tiers().layer(leaf));
    assert_eq!(of(&spilling, request()).await, ["", "first-token-late", ""]);
}

#[tokio::test(start_paused = true)]
async fn other_traffic_than_tokens_is_refused_for_its_kind() {
    let images = || {
        let path = "/openai/deployments/d/images/generations?api-version=2024-10-21";
        Request::post(path).body(Full::from("{}")).unwrap()
    };
    let service = tiers().layer(ptu(|| Answer::refused(20_000)));
    for _ in 0..2 {
        assert_eq!(of(&service, images()).await, ["", "kind (20s > 4s)", ""]);
    }
}

/// Spills whatever was refused once, however short the hint.
struct Impatient;

impl FallbackPolicy for Impatient {
    fn next(&self, _: &FallbackFacts) -> Next {
        Next::Spill
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_custom_policy_spills_against_the_figures_says_so() {
    let service = tiers().policy(Impatient).layer(ptu(|| Answer::refused(20)));
    assert_eq!(of(&service, request()).await, ["", "policy", ""]);
    let service = tiers().policy(Impatient).layer(ptu(|| Answer::refused(20_000)));
    assert_eq!(of(&service, request()).await, ["", "hint (20s > 4s)", ""], "it would not fit");
}

#[tokio::test(start_paused = true)]
async fn under_lasting_overload_each_spill_says_what_it_lost_to() {
    // It serves one request in 0.3 s; three come meanwhile.
    let serves = |at: Duration| at.as_millis() % 300 < 60;
    let leaf = Leaf::new(move |seen| match seen.host() {
        "ptu.example" if !serves(seen.at) => {
            Answer::refused(u64::try_from(300 - seen.at.as_millis() % 300).unwrap())
        }
        _ => Answer::ok(),
    });
    let gate = Gate::new().standing_queue_interval(Duration::from_secs(1));
    let service = tiers().gate(gate).layer(leaf);
    let mut labels = BTreeMap::new();
    let mut under_way = Vec::new();
    for _ in 0..900 {
        under_way.push(tokio::spawn(service.clone().oneshot(request())));
        pass(ms(100)).await;
    }
    for request in under_way {
        let response = request.await.unwrap().unwrap();
        let why = account(&response).why_spilled().map_or("none", |why| why.label());
        *labels.entry(why).or_insert(0) += 1;
    }
    for expected in ["deadline", "hint", "none", "queue", "standing-queue"] {
        assert!(labels.contains_key(expected), "{labels:?}");
    }
}
