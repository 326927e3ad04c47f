//! Lesson 26, through the gateway: small writes are not delayed.

use std::{net::SocketAddr, time::Duration};

use spillover_emulator::{Deployment, Pace, Standard};
use spillover_testing::{
    azure::{Azure, STANDARD},
    delays::{BAR, quickest_quarter},
};

use crate::{emulate, started::Started};

// No TCP_NODELAY: 43 ms more per request on a reused connection.
#[tokio::test]
async fn lesson_26_a_stream_over_a_kept_connection_is_not_held_up_by_acknowledgements() {
    let pace = Pace { first_token: Duration::ZERO, per_token: Duration::from_millis(1) };
    let azure = Azure::with(&["east"], |resource| {
        resource.deployment(Deployment::standard(STANDARD, Standard::unlimited()).pace(pace))
    })
    .await;
    let (_gateway, addr) = gateway(azure.addr("east"));
    let quick = quickest_quarter(addr, "").await;
    assert!(quick < BAR, "the gateway: {quick:?}");
}

/// A gateway in front of it.
fn gateway(backend: SocketAddr) -> (Started, SocketAddr) {
    let text = format!(
        "[listen]\naddress = \"127.0.0.1:0\"\n[clients]\nopen = true\n[[models.\"{STANDARD}\".standard]]\n\
         name = \"east\"\nendpoint = \"http://{backend}\"\nkey = \"env:EAST_KEY\"\n"
    );
    let config = emulate::file("lessons/delays.toml", &text);
    let arguments = ["serve", "--config", config.to_str().unwrap()];
    let mut started = Started::with(&arguments, |command| command.env("EAST_KEY", "key-of-east"));
    let url = started.endpoint();
    let addr = url.trim_start_matches("http://").parse().unwrap();
    (started, addr)
}
