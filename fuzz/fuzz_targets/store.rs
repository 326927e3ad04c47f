//! The answer of a fleet's store, whatever server that is: no time in it is absurd, and a cluster's slots
//! all have a server.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use tower_spillover::fuzzing::{StoreAnswer, store_answer};

const DAY: Duration = Duration::from_secs(24 * 3_600);

fuzz_target!(|answer: &[u8]| {
    let Some(read) = store_answer(answer) else { return };
    let StoreAnswer { budget, gate, replicas, holders, servers } = read;
    assert!(budget.is_none_or(|time| time <= 365 * DAY), "{budget:?}");
    assert!(gate.is_none_or(|time| time <= DAY), "{gate:?}");
    assert!((1..=100_000).contains(&replicas), "{replicas}");
    assert_eq!(holders, 0, "without the secret, none can be named");
    if let Some(servers) = servers {
        assert!((1..=1_000).contains(&servers), "{servers}");
    }
});
