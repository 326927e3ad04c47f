//! Failures order, refusals close: random failures never cost more requests than they fail.

use std::{
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::future::join_all;
use http::{Request, Response};
use http_body_util::Full;
use proptest::prelude::*;
use tower::{Layer, Service, ServiceExt};
use tower_spillover::{
    Backend, BackendPool, RegionRotateLayer, ResponseBody, SmartFallbackLayer, policy::MoveOn,
};

use crate::{
    clock::{ms, pass, paused},
    leaf::{Answer, Broken, Kind, Leaf, Seen, account, every_connect, request},
};

/// What a backend does with every request in a time slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Serve,
    Fail,
    /// It cannot be connected to.
    Vanish,
    Refuse,
}

const SLOT_MS: u64 = 100;
const REFUSES_MS: u64 = 250;

fn does() -> impl Strategy<Value = Does> {
    prop_oneof![
        3 => Just(Does::Serve),
        3 => Just(Does::Fail),
        2 => Just(Does::Vanish),
        1 => Just(Does::Refuse),
    ]
}

fn days() -> impl Strategy<Value = Vec<[Does; 3]>> {
    // Whole outages and single failures.
    prop::collection::vec((prop::array::uniform3(does()), 1..20usize), 1..10)
        .prop_map(|days| days.into_iter().flat_map(|(day, slots)| vec![day; slots]).collect())
}

fn index(seen: &Seen) -> usize {
    usize::from(seen.host().as_bytes()[0] - b'a')
}

/// Every kind of failure moves on, at any price.
fn failures() -> MoveOn<Kind> {
    every_connect().internal_error().budget(None)
}

fn rotate(names: &[&str]) -> RegionRotateLayer<Kind> {
    let backend =
        |name: &&str| Backend::new(*name, format!("https://{name}.example")).unwrap().api_key("k");
    let pool = BackendPool::new(names.iter().map(backend)).unwrap();
    RegionRotateLayer::new(pool).move_on(failures())
}

type Outcome = Result<Response<ResponseBody<Full<Bytes>>>, Broken>;

/// Sends three concurrent requests in each slot.
async fn ask_all<S>(service: &S, slots: usize) -> Vec<(usize, Outcome)>
where
    S: Service<
            Request<Full<Bytes>>,
            Response = Response<ResponseBody<Full<Bytes>>>,
            Error = Broken,
        > + Clone,
{
    let asks = (0..slots * 3).map(|number| {
        let service = service.clone();
        let slot = number / 3;
        async move {
            pass(ms(slot as u64 * SLOT_MS + number as u64 % 3 * 20)).await;
            (slot, service.oneshot(request()).await)
        }
    });
    join_all(asks).await
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn failures_alone_never_make_a_pool_answer_by_itself(days in days()) {
        paused(async {
            let script = days.clone();
            let until = Arc::new(Mutex::new([Duration::ZERO; 3]));
            let closed = Arc::clone(&until);
            let leaf = Leaf::new(move |seen| {
                let slot = seen.at.as_millis() as usize / SLOT_MS as usize;
                match script[slot.min(script.len() - 1)][index(seen)] {
                    // Some answers take as long as many slots.
                    Does::Serve => Answer::ok().after(if seen.index % 3 == 0 { 900 } else { 0 }),
                    Does::Fail => Answer::status(500),
                    Does::Vanish => Answer::broken(),
                    Does::Refuse => {
                        closed.lock().unwrap()[index(seen)] = seen.at + ms(REFUSES_MS);
                        Answer::refused(REFUSES_MS)
                    }
                }
            });
            let service = rotate(&["a", "b", "c"]).layer(leaf.clone());
            for (slot, day) in days.iter().enumerate() {
                for _ in 0..3 {
                    let before = *until.lock().unwrap();
                    let now = ms(slot as u64 * SLOT_MS);
                    let serves =
                        (0..3).any(|it| day[it] == Does::Serve && before[it] <= now);
                    let asked = tokio::spawn(service.clone().oneshot(request()));
                    pass(ms(1)).await;
                    let answers = !asked.is_finished();
                    if serves {
                        prop_assert!(answers || asked.await.unwrap().unwrap().status().is_success());
                    } else {
                        prop_assert!(!answers);
                        if let Ok(response) = asked.await.unwrap() {
                            let all = until.lock().unwrap().iter().all(|&until| until > now);
                            let by_itself = account(&response).backend().is_none();
                            let has_refused = account(&response)
                                .attempts()
                                .any(|attempt| attempt.status().is_some_and(|it| it == 429));
                            prop_assert!(!by_itself || all || has_refused, "{}", account(&response));
                        }
                    }
                }
                pass(ms(SLOT_MS - 3)).await;
            }
            Ok(())
        })?;
    }

    #[test]
    fn two_tiers_that_fail_serve_whatever_any_backend_would(days in days(), nested: bool) {
        paused(async {
            let script = days.clone();
            let leaf = Leaf::new(move |seen| {
                let slot = seen.at.as_millis() as usize / SLOT_MS as usize;
                match script[slot.min(script.len() - 1)][index(seen)] {
                    Does::Serve => Answer::ok(),
                    Does::Vanish => Answer::broken(),
                    Does::Fail | Does::Refuse => Answer::status(500),
                }
            });
            let outcomes = if nested {
                let inner = SmartFallbackLayer::new(rotate(&["a"]), rotate(&["b"]));
                let tiers = SmartFallbackLayer::new(inner.move_on(failures()), rotate(&["c"]));
                ask_all(&tiers.move_on(failures()).layer(leaf), days.len()).await
            } else {
                let tiers = SmartFallbackLayer::new(rotate(&["a"]), rotate(&["b", "c"]));
                ask_all(&tiers.move_on(failures()).layer(leaf), days.len()).await
            };
            for (slot, outcome) in outcomes {
                let serves = days[slot].contains(&Does::Serve);
                let is_served = outcome.as_ref().is_ok_and(|it| it.status().is_success());
                prop_assert_eq!(is_served, serves, "slot {}: {:?}", slot, days[slot]);
                if let Ok(response) = outcome {
                    prop_assert!(account(&response).backend().is_some(), "by itself");
                }
            }
            Ok(())
        })?;
    }
}

/// How many requests in a thousand are served over a minute at this rate.
async fn served<S, R>(service: S, per_second: u64) -> u64
where
    S: Service<Request<Full<Bytes>>, Response = Response<R>, Error = Broken> + Clone,
    S::Future: Future,
{
    let requests = per_second * 60;
    let asks = (0..requests).map(|number| {
        let service = service.clone();
        async move {
            pass(ms(number * 1_000 / per_second)).await;
            service.oneshot(request()).await.is_ok_and(|it| it.status().is_success())
        }
    });
    let served = join_all(asks).await.into_iter().filter(|&served| served).count() as u64;
    served * 1_000 / requests
}

/// This many attempts in a thousand fail, independently, and an answer takes 100 ms.
fn failing(in_a_thousand: u64, failure: Answer) -> Leaf {
    Leaf::new(move |seen| {
        // Any mixing of the bits works if it is the same in every run.
        let mixed = (seen.index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 33;
        if mixed % 1_000 < in_a_thousand { failure.clone() } else { Answer::ok().after(100) }
    })
}

#[tokio::test(start_paused = true)]
async fn failover_serves_more_than_a_single_backend_would_however_often_each_fails() {
    let error = Answer::status(500);
    for (names, in_a_thousand, per_second, failure, least) in [
        (&["a", "b", "c"][..], 10, 300, error.clone(), 999),
        (&["a", "b"], 100, 100, error.clone(), 980),
        // The budget of moves is spent after half a minute.
        (&["a", "b"], 500, 50, error, 600),
        (&["a", "b", "c"], 10, 300, Answer::broken(), 999),
    ] {
        let moves = every_connect().internal_error();
        let layer = rotate(names).move_on(moves);
        let served = served(layer.layer(failing(in_a_thousand, failure)), per_second).await;
        assert!(served >= least, "{names:?} {in_a_thousand}: {served}");
    }
    let tiers = SmartFallbackLayer::new(rotate(&["ptu"]), rotate(&["std"]));
    let moves = every_connect().internal_error();
    let leaf = failing(20, Answer::status(500));
    let served = served(tiers.move_on(moves).layer(leaf.clone()), 100).await;
    assert!(served >= 998, "{served}");
    let on_ptu = leaf.hosts().iter().filter(|host| *host == "ptu.example").count();
    assert!(on_ptu >= 5_900, "the PTU is paid for: {on_ptu}");
}

#[tokio::test(start_paused = true)]
async fn a_caller_whose_requests_fail_everywhere_disturbs_nobody() {
    for (per_second, poison_per_second) in [(1, 1), (1, 20), (50, 5)] {
        let leaf = Leaf::new(|seen| match seen.header("x-poison") {
            Some(_) => Answer::status(500),
            None => Answer::ok(),
        });
        let tiers = SmartFallbackLayer::new(rotate(&["ptu"]), rotate(&["a", "b"]));
        let service = tiers.move_on(MoveOn::new().gateway_timeout()).layer(leaf.clone());
        let poison = (0..60 * poison_per_second).map(|number| {
            let service = service.clone();
            async move {
                pass(ms(number * 1_000 / poison_per_second)).await;
                let mut request = request();
                request.headers_mut().insert("x-poison", "1".parse().unwrap());
                let response = service.oneshot(request).await.unwrap();
                assert_eq!(response.status().as_u16(), 500, "its own failure");
            }
        });
        let (served, _) = futures::join!(served(service.clone(), per_second), join_all(poison));
        assert_eq!(served, 1_000);
        let healthy = leaf.seen().into_iter().filter(|seen| seen.header("x-poison").is_none());
        assert!(healthy.into_iter().all(|seen| seen.host() == "ptu.example"), "nobody spills");
    }
}
