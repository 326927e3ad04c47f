//! Lesson 26, over sockets: small writes are not held back.

use std::time::Duration;

use spillover_emulator::{Deployment, Pace, Standard};
use spillover_testing::delays::{BAR, quickest_quarter};

use crate::azure::{Azure, STANDARD};

// No TCP_NODELAY: 43 ms more on each request over a connection that is kept.
#[tokio::test]
async fn lesson_26_a_stream_over_a_kept_connection_is_not_held_up_by_acknowledgements() {
    let pace = Pace { first_token: Duration::ZERO, per_token: Duration::from_millis(1) };
    let azure = Azure::with(&["east"], |resource| {
        resource.deployment(Deployment::standard(STANDARD, Standard::unlimited()).pace(pace))
    })
    .await;
    let quick = quickest_quarter(azure.addr("east"), "key-of-east").await;
    assert!(quick < BAR, "the emulator: {quick:?}");
}
