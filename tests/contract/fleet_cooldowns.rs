//! Cooldowns that several processes share through a fleet's store.

use std::time::Duration;

use http::StatusCode;
use tower::{Layer, ServiceExt};
use tower_spillover::{
    Backend, BackendPool, Fleet, RegionRotateLayer, fleet::Local, region_rotate::RegionRotate,
};

use crate::{
    clock::{ms, pass},
    leaf::{Answer, Leaf, request},
};

const MINUTE: Duration = Duration::from_secs(60);

/// A process with two backends, of which `east` answers like this.
struct Process {
    pool: BackendPool,
    leaf: Leaf,
    service: RegionRotate<Leaf>,
    _fleet: Fleet,
}

impl Process {
    fn new(store: &Local, of: &str, east: Answer) -> Self {
        let fleet = Fleet::new("prod", store.clone()).unwrap();
        let backend = |name: &str| {
            let host = format!("https://{name}.example");
            Backend::new(name, host).unwrap().deployment("gpt-4o").api_key("key")
        };
        let pool = BackendPool::new([backend("east"), backend("west").priority(2)]).unwrap();
        let pool = pool.fleet(&fleet, of, MINUTE);
        let leaf = Leaf::new(move |seen| match seen.host() {
            "east.example" => east.clone(),
            _ => Answer::ok(),
        });
        let service = RegionRotateLayer::new(pool.clone()).layer(leaf.clone());
        Self { pool, leaf, service, _fleet: fleet }
    }

    /// The attempts of a request that is served.
    async fn attempts(&self) -> usize {
        let before = self.leaf.len();
        let response = self.service.clone().oneshot(request()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        self.leaf.len() - before
    }

    fn east(&self) -> Option<Duration> {
        self.pool.cooldowns().find_map(|(name, left)| left.filter(|_| name == "east"))
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_refused_one_process_is_not_called_by_the_others() {
    let store = Local::new();
    let [first, second] = [(); 2].map(|()| Process::new(&store, "gpt-4o", Answer::refused(9_000)));
    let other = Process::new(&store, "gpt-4o-mini", Answer::refused(9_000));
    assert_eq!(first.attempts().await, 2);
    assert_eq!((second.attempts().await, second.east()), (1, Some(ms(9_000))));
    assert_eq!(other.east(), None, "another model");
    pass(ms(4_000)).await;
    let joined_later = Process::new(&store, "gpt-4o", Answer::ok());
    assert_eq!(joined_later.east(), Some(ms(5_000)));
    pass(ms(5_000)).await;
    assert_eq!((second.east(), joined_later.east()), (None, None));
    assert_eq!(second.attempts().await, 2, "it is asked again");
}

#[tokio::test(start_paused = true)]
async fn a_longer_cooldown_stays_and_none_is_longer_than_the_policy_s() {
    let store = Local::new();
    let short = Process::new(&store, "gpt-4o", Answer::refused(1_000));
    let long = Process::new(&store, "gpt-4o", Answer::refused(30_000));
    assert_eq!(short.attempts().await, 2);
    pass(ms(1_000)).await;
    assert_eq!(long.attempts().await, 2);
    assert_eq!(short.east(), Some(ms(30_000)));
    pass(ms(29_990)).await;
    assert!(short.east().is_some());
    // The service asks for an hour.
    pass(ms(10)).await;
    let far = Process::new(&store, "gpt-4o", Answer::refused(3_600_000));
    assert_eq!(far.attempts().await, 2);
    assert!(short.east().is_none_or(|left| left <= MINUTE), "{:?}", short.east());
}

#[tokio::test(start_paused = true)]
async fn failures_and_what_is_refused_while_the_store_is_down_are_each_process_s_own() {
    let store = Local::new();
    let failing = Process::new(&store, "gpt-4o", Answer::status(500));
    let other = Process::new(&store, "gpt-4o", Answer::refused(9_000));
    for _ in 0..9 {
        failing.attempts().await;
    }
    assert!(failing.pool.deferred().any(|(_, left)| left.is_some()));
    assert!(other.pool.deferred().all(|(_, left)| left.is_none()));
    store.set_up(false);
    assert_eq!(other.attempts().await, 2);
    assert_eq!((other.east().is_some(), failing.east()), (true, None));
}
