use std::{
    fmt,
    future::{Future, poll_fn},
    sync::{Arc, PoisonError},
    task::Poll,
    thread,
    time::{Duration, Instant},
};

use futures_core::future::BoxFuture;

use super::member::MAX_TELLING_DELAY;
use crate::{
    fleet::{
        Answer, Attempt, Fleet, GateCall, GateReply, Grant, Kind, Name, Seed, SharedGate,
        SpillKind, Step, Store, Unreachable,
    },
    gate::{Admission, Gate, RefusedAttempt, Waiter},
    sync::{Mutex, MutexGuard, clock},
};

/// A store that does what a test wants, and records what it is called with.
#[derive(Clone, Default)]
struct Mock(Arc<Mutex<Mocked>>);

#[derive(Default)]
struct Mocked {
    gate: SharedGate,
    behaviour: Behaviour,
    since: Option<Instant>,
    steps: Vec<Step>,
    calls: usize,
}

#[derive(Clone, Debug, Default)]
enum Behaviour {
    #[default]
    Answers,
    /// After this time.
    IsSlow(Duration),
    Hangs,
    IsDown,
    /// The gate is asked, and this is answered instead, or nothing.
    Lies(Option<Answer>),
    /// The gate is asked, and this is replied instead.
    #[cfg(feature = "redis")]
    Replies(GateReply),
}

impl Mock {
    fn lock(&self) -> MutexGuard<'_, Mocked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn behaves(&self, behaviour: Behaviour) {
        self.lock().behaviour = behaviour;
    }

    fn apply(&self, call: &GateCall) -> GateReply {
        let now = clock::now();
        let mut mocked = self.lock();
        let since = *mocked.since.get_or_insert(now);
        mocked.calls += 1;
        mocked.steps.extend(&call.steps);
        mocked.gate.apply(now - since + Duration::from_secs(1), call)
    }
}

impl fmt::Debug for Mock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mock")
    }
}

impl Store for Mock {
    fn is_up(&self) -> bool {
        !matches!(self.lock().behaviour, Behaviour::IsDown)
    }

    fn replicas(&self, _: &str) -> u32 {
        4
    }

    fn gate(&self, _: &Name, call: GateCall) -> BoxFuture<'static, Result<GateReply, Unreachable>> {
        let store = self.clone();
        let behaviour = self.lock().behaviour.clone();
        Box::pin(async move {
            let mut reply = store.apply(&call);
            match behaviour {
                Behaviour::IsSlow(time) => {
                    let undo = Undo { store, call, reply: Some(reply.clone()) };
                    clock::sleep_until(clock::now() + time).await;
                    undo.delivered();
                }
                Behaviour::Hangs => std::future::pending().await,
                Behaviour::Lies(answer) => reply.0.answers = answer.into_iter().collect(),
                #[cfg(feature = "redis")]
                Behaviour::Replies(instead) => reply = instead,
                Behaviour::Answers | Behaviour::IsDown => {}
            }
            Ok(reply)
        })
    }

    fn tell_gate(&self, _: &Name, call: GateCall) {
        self.apply(&call);
    }
}

/// What a store does whose reply cannot be delivered.
struct Undo {
    store: Mock,
    call: GateCall,
    reply: Option<GateReply>,
}

impl Undo {
    fn delivered(mut self) {
        self.reply = None;
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        if let Some(undo) = self.reply.take().and_then(|reply| self.call.undo(&reply)) {
            self.store.apply(&undo);
        }
    }
}

fn fleet(store: &Mock) -> Gate {
    let fleet = Fleet::new("test", store.clone()).expect("a name");
    Gate::new().fleet(&fleet, "ptu")
}

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

fn admit(gate: &Gate, left: Duration) -> Admission {
    let now = clock::now();
    gate.admit(now, 1_000.0, 0, now + left)
}

fn queued(admission: Admission) -> Waiter {
    let Admission::Wait(waiter, _) = admission else { panic!("{admission:?}") };
    waiter
}

/// The PTU refuses an attempt that was sent 30 ms ago, with this hint.
async fn refuse(gate: &Gate, closed: Duration) -> Admission {
    let now = clock::now();
    let sent_at = now.checked_sub(30 * MS).unwrap_or(now);
    let refusal = RefusedAttempt {
        cost: 1_000.0,
        rank: 0,
        sent_at,
        now,
        closed,
        is_measured: true,
        utilization: None,
        deadline: now + 4 * SECOND,
        is_patient: false,
    };
    let (waiter, _) = gate.on_refused(None, &refusal).expect("it asks the store");
    waiter.await
}

#[tokio::test(start_paused = true)]
async fn while_the_ptu_is_open_the_store_is_not_called() {
    let store = Mock::default();
    let gate = fleet(&store);
    assert!(!gate.is_busy());
    assert!(matches!(refuse(&gate, 40 * MS).await, Admission::Go(_)));
    assert!(gate.is_busy(), "until a second after it reopened");
    clock::sleep_until(clock::now() + 3 * SECOND).await;
    let calls = store.lock().calls;
    assert!(calls > 0);
    assert!(matches!(admit(&gate, SECOND), Admission::Go(_)));
    assert!(!gate.is_busy() && store.lock().calls == calls);
}

#[tokio::test(start_paused = true)]
async fn processes_that_share_a_store_have_one_queue() {
    let store = Mock::default();
    let gates = [fleet(&store), fleet(&store)];
    let refused = tokio::spawn({
        let gate = gates[0].clone();
        async move { refuse(&gate, 200 * MS).await }
    });
    tokio::task::yield_now().await;
    // The other one has not heard of it: pub/sub is what a store adds.
    gates[1].shared.on_fleet_closed(clock::now(), 200 * MS);
    let started = clock::now();
    let waiter = queued(admit(&gates[1], 4 * SECOND));
    let second = waiter.await;
    assert!(matches!(second, Admission::Go(_)), "{second:?}");
    assert!(clock::now() - started >= 150 * MS, "it waited although it had no refusal");
    assert!(matches!(refused.await.expect("it does not panic"), Admission::Go(_)));
}

#[tokio::test(start_paused = true)]
async fn the_next_request_is_predicted_the_wait_of_the_last_one_unless_it_is_more_urgent() {
    let store = Mock::default();
    let gate = fleet(&store);
    let _ = refuse(&gate, 100 * MS).await;
    let (wait, allowed) = (9e6, 1e6);
    store.behaves(Behaviour::Lies(Some(Answer::Spill { wait, allowed, cause: SpillKind::Queue })));
    let now = clock::now();
    let spilled = queued(gate.admit(now, 1_000.0, 3, now + SECOND)).await;
    assert!(matches!(spilled, Admission::Spill(_)), "{spilled:?}");
    let predicted = |rank| gate.predicted_wait(clock::now(), rank);
    assert_eq!([predicted(3), predicted(7)], [9 * SECOND; 2]);
    assert!(predicted(0) < SECOND, "{:?}", predicted(0));
    clock::sleep_until(now + SECOND / 2).await;
    assert_eq!(predicted(3), 8 * SECOND + 500 * MS);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_holds_a_request_for_its_timeout_and_then_its_process_decides() {
    let store = Mock::default();
    let gate = fleet(&store);
    let _ = refuse(&gate, 100 * MS).await;
    store.behaves(Behaviour::Hangs);
    let started = clock::now();
    let admission = queued(admit(&gate, SECOND)).await;
    let held = clock::now() - started;
    assert!(matches!(admission, Admission::Go(_)), "{admission:?}");
    assert!((50 * MS..=60 * MS).contains(&held), "{held:?}");
}

#[tokio::test(start_paused = true)]
async fn without_the_store_a_process_goes_by_its_share_of_what_it_was_told() {
    let store = Mock::default();
    let gate = fleet(&store);
    for _ in 0..3 {
        let refused = refuse(&gate, 40 * MS).await;
        let Admission::Go(permit) = refused else { panic!("{refused:?}") };
        permit.on_accepted(None);
        clock::sleep_until(clock::now() + 600 * MS).await;
    }
    let shared = gate.rate().expect("two refusals measure it");
    store.behaves(Behaviour::IsDown);
    let _ = admit(&gate, 4 * SECOND);
    let unanswered = gate.member().seed_alone();
    let (_, share) = unanswered.expect("it was not asked before");
    assert!((share - shared / 4.0).abs() < 1e-6, "{share} {shared}");
    assert!(gate.member().seed_alone().is_none(), "once");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_returns_is_asked_again_although_its_process_knows_that_the_ptu_is_busy() {
    let store = Mock::default();
    let gate = fleet(&store);
    let _ = refuse(&gate, 100 * MS).await;
    store.behaves(Behaviour::IsDown);
    // Longer than what the store said last is true.
    for _ in 0..5 {
        let _ = refuse(&gate, 400 * MS).await;
    }
    store.behaves(Behaviour::Answers);
    let before = store.lock().calls;
    let waiter = queued(admit(&gate, SECOND));
    assert!(!waiter.is_alone());
    let _ = waiter.await;
    assert!(store.lock().calls > before);
}

#[tokio::test(start_paused = true)]
async fn no_request_stays_in_the_store_s_queue_and_no_permission_is_lost_wherever_it_is_dropped() {
    for polls in 0..12 {
        for behaviour in [Behaviour::Answers, Behaviour::IsSlow(10 * MS), Behaviour::Hangs] {
            let store = Mock::default();
            let gate = fleet(&store);
            let _ = refuse(&gate, 150 * MS).await;
            store.behaves(behaviour.clone());
            let mut waiter = Box::pin(queued(admit(&gate, SECOND)));
            let mut permit = None;
            for _ in 0..polls {
                let polled = poll_fn(|cx| Poll::Ready(waiter.as_mut().poll(cx))).await;
                if let Poll::Ready(admission) = polled {
                    permit = Some(admission);
                    break;
                }
                clock::sleep_until(clock::now() + 25 * MS).await;
            }
            drop(waiter);
            drop(permit);
            // The next call carries the steps that were not sent yet.
            store.behaves(Behaviour::Answers);
            let now = clock::now() + MAX_TELLING_DELAY;
            gate.member().tell(now, Step::Gone { at: 0.0, cost: 0.0 });
            let mocked = store.lock();
            assert_eq!(mocked.gate.waiting(), 0, "after {polls} polls, {behaviour:?}");
            assert_eq!(gate.waiting(), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_calls_rarely_tells_the_store_at_once_and_a_busy_one_gathers() {
    let store = Mock::default();
    let gate = fleet(&store);
    // The number of calls for 64 steps, so far apart.
    let calls = async |apart: Duration| {
        let before = store.lock().calls;
        for _ in 0..64 {
            clock::sleep_until(clock::now() + apart).await;
            gate.member().tell(clock::now(), Step::Gone { at: 0.0, cost: 0.0 });
        }
        store.lock().calls - before
    };
    assert!((3..=8).contains(&calls(MS).await), "steps are gathered");
    let _ = calls(300 * MS).await;
    assert_eq!(calls(300 * MS).await, 64, "the next call may be long in coming");
    let _ = calls(MS).await;
    assert!((3..=8).contains(&calls(MS).await), "it is busy again");
}

#[tokio::test(start_paused = true)]
async fn whatever_a_store_answers_no_request_waits_longer_than_it_may() {
    let attempt = Attempt { at: f64::NAN, admitted_before: -1e300, sent_after: 1e300 };
    let grant = Grant { order: f64::NEG_INFINITY, attempt: Some(attempt) };
    for lie in [
        None,
        Some(Answer::Wait { after: 0.0, order: f64::NAN, predicted: 0.0 }),
        Some(Answer::Wait { after: f64::INFINITY, order: -1.0, predicted: f64::NAN }),
        Some(Answer::Wait { after: f64::NEG_INFINITY, order: 1e300, predicted: -1.0 }),
        Some(Answer::Go { after: 1e300, grant }),
        Some(Answer::Go { after: f64::NAN, grant }),
        Some(Answer::Spill { wait: f64::NAN, allowed: -1e300, cause: SpillKind::StandingQueue }),
    ] {
        let store = Mock::default();
        let gate = fleet(&store);
        let _ = refuse(&gate, 40 * MS).await;
        store.behaves(Behaviour::Lies(lie));
        let started = clock::now();
        let _ = queued(admit(&gate, SECOND)).await;
        let held = clock::now() - started;
        assert!(held <= SECOND + 2 * MS, "{lie:?} held it for {held:?}");
    }
}

#[cfg(feature = "redis")]
#[tokio::test(start_paused = true)]
async fn whatever_numbers_a_script_replies_no_request_is_held_by_them() {
    const ODD: [i64; 8] =
        [0, -1, 1_000, i64::MIN, i64::MAX, -1_000_000_000_000_000, 86_400_000_000, 9];
    let mut drawn = 1;
    let mut below = |limit: usize| {
        drawn = crate::random::split_mix(drawn);
        (drawn >> 11) as usize % limit
    };
    let mut replies = 0;
    for _ in 0..3_000 {
        let answers = below(3);
        let mut numbers: Vec<i64> = (0..6 * answers + 4).map(|_| ODD[below(ODD.len())]).collect();
        for answer in 0..answers {
            numbers[6 * answer] = 1 + below(3) as i64;
            numbers[6 * answer + 3] = [0, 1, 2, ODD[below(ODD.len())]][below(4)];
        }
        let Some(reply) = GateReply::read(&numbers) else { continue };
        replies += 1;
        let store = Mock::default();
        let gate = fleet(&store);
        let _ = refuse(&gate, 40 * MS).await;
        store.behaves(Behaviour::Replies(reply));
        let started = clock::now();
        drop(queued(admit(&gate, SECOND)).await);
        let held = clock::now() - started;
        assert!(held <= SECOND + 2 * MS, "{numbers:?} held it for {held:?}");
        let _ = (gate.state(), gate.level(), gate.rate(), gate.predicted_wait(clock::now(), 0));
        // An earlier answer does not hold it either once its process decides alone.
        store.behaves(Behaviour::IsDown);
        let started = clock::now();
        if let Admission::Wait(waiter, _) = admit(&gate, SECOND) {
            drop(waiter.await);
        }
        let held = clock::now() - started;
        assert!(held <= SECOND + 2 * MS, "after {numbers:?} alone for {held:?}");
    }
    assert!(replies > 1_000, "{replies}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_that_cannot_wait_tells_the_store_nevertheless() {
    let store = Mock::default();
    let gate = fleet(&store);
    let now = clock::now();
    let refusal = RefusedAttempt {
        cost: 1_000.0,
        rank: 0,
        sent_at: now,
        now,
        closed: 100 * MS,
        is_measured: true,
        utilization: None,
        deadline: now,
        is_patient: false,
    };
    drop(gate.on_refused(None, &refusal));
    gate.member().tell(clock::now() + MAX_TELLING_DELAY, Step::Gone { at: 0.0, cost: 0.0 });
    let mocked = store.lock();
    assert!(matches!(mocked.steps[0], Step::Refused { .. }), "{:?}", mocked.steps);
    assert_eq!(mocked.gate.waiting(), 0);
}

#[test]
fn a_request_may_be_dropped_on_any_thread() {
    fn check<T: Send + 'static>(value: T) {
        thread::spawn(move || drop(value)).join().expect("it does not panic");
    }
    let gate = fleet(&Mock::default());
    gate.shared.on_fleet_closed(clock::now(), SECOND);
    check(queued(admit(&gate, SECOND)));
}

#[cfg(feature = "redis")]
#[tokio::test]
async fn two_processes_on_one_server_have_one_queue_and_hear_from_each_other() {
    let Some(server) = spillover_testing::redis::Server::start(&[]) else { return };
    let process = || {
        let store = crate::fleet::RedisStore::new(&server.url()).expect("a URL");
        let fleet = Fleet::new("test", store).expect("a name").timeout(SECOND);
        (Gate::new().fleet(&fleet, "ptu"), fleet)
    };
    let [(first, fleet), (second, other)] = [process(), process()];
    until(&|| fleet.is_up() && other.is_up()).await;
    let refused = tokio::spawn({
        let gate = first.clone();
        async move { refuse(&gate, SECOND).await }
    });
    until(&|| second.is_busy()).await;
    let started = clock::now();
    let admission = queued(admit(&second, 4 * SECOND)).await;
    let Admission::Go(permit) = admission else { panic!("{admission:?}") };
    // Until the hint is checked.
    assert!(clock::now() - started >= 250 * MS, "it waited although it had no refusal");
    permit.on_accepted(None);
    assert!(matches!(refused.await.expect("it does not panic"), Admission::Go(_)));
    assert!(second.state().expect("it learns").to_string().starts_with("learning"));
    assert_eq!((first.waiting(), second.waiting()), (0, 0));
}

/// A member whose process is killed with a hundred waiting requests. What they waited for goes to the
/// requests of others.
#[cfg(feature = "redis")]
#[tokio::test]
async fn requests_of_a_killed_process_delay_those_of_others_by_a_moment() {
    let Some(server) = spillover_testing::redis::Server::start(&[]) else { return };
    let process = || {
        let store = crate::fleet::RedisStore::new(&server.url()).expect("a URL");
        let fleet = Fleet::new("test", store).expect("a name").timeout(SECOND);
        (Gate::new().fleet(&fleet, "ptu"), fleet)
    };
    let [(killed, fleet), (gate, other)] = [process(), process()];
    until(&|| fleet.is_up() && other.is_up()).await;
    // A hundred requests of 1,000 take a second.
    let seed = Seed { closed: 300e3, rate: 100_000.0 };
    let name = other.caller().name(Kind::Gate, "ptu");
    let call = GateCall { interval: 0.0, seed, steps: Vec::new() };
    other.caller().gate(&name, call).expect("it is up").await.expect("a reply");
    for gate in [&killed, &gate] {
        gate.shared.on_fleet_closed(clock::now(), SECOND);
    }
    let mut waiting = Vec::new();
    for _ in 0..100 {
        let mut waiter = Box::pin(queued(admit(&killed, 4 * SECOND)));
        let _ = poll_fn(|cx| Poll::Ready(waiter.as_mut().poll(cx))).await;
        waiting.push(waiter);
    }
    until(&|| server.command(&["EVAL", COUNT, "0"]) == ":100").await;
    // Its connection and its futures are as if they had never been.
    waiting.into_iter().for_each(std::mem::forget);
    let started = clock::now();
    let admission = queued(admit(&gate, 4 * SECOND)).await;
    let waited = clock::now() - started;
    println!("behind a hundred requests of a dead process: {waited:?}");
    assert!(matches!(admission, Admission::Go(_)), "{admission:?}");
    // At most 1.3 s if they had lived, and they had a second to drain.
    assert!(waited <= 1_600 * MS, "{waited:?}");
    // All of them are late for their appointments by then, and the next request finds out.
    clock::sleep_until(started + 1_500 * MS).await;
    drop(queued(admit(&gate, 4 * SECOND)).await);
    assert_eq!(server.command(&["EVAL", COUNT, "0"]), ":0");
}

/// The number of requests in the only queue.
#[cfg(feature = "redis")]
const COUNT: &str = "local queue = redis.call('KEYS', 'sp1:*:q*')[1] \
                     return queue and redis.call('ZCARD', queue) or 0";

#[cfg(feature = "redis")]
async fn until(is: &dyn Fn() -> bool) {
    let end = clock::now() + 10 * SECOND;
    while !is() {
        assert!(clock::now() < end, "not within ten seconds");
        clock::sleep_until(clock::now() + 5 * MS).await;
    }
}
