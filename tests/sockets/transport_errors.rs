//! Errors before any answer: refused connections, resets, failing servers.

use spillover_emulator::Fault;
use tokio::net::TcpSocket;
use tower::{Layer, ServiceExt};
use tower_spillover::{
    BackendPool, RegionRotateLayer,
    policy::{ErrorKind, MoveOn},
};

use crate::{
    azure::{Azure, backend_at},
    clock::soon,
    protocol::{BOTH, Error, Protocol},
    stack::{Stack, attempts, chat, rotation, send},
};

const EAST: &str = "east/gpt-4o";
const DEAD: &str = "dead/gpt-4o";

/// A dead backend, asked first, and a living one. While the socket is kept, no process listens there.
fn dead_or_alive(azure: &Azure) -> (TcpSocket, BackendPool) {
    let dead = TcpSocket::new_v4().expect("a socket");
    dead.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let addr = dead.local_addr().expect("it is bound");
    let pool = BackendPool::new([backend_at(DEAD, addr), azure.backend(EAST)]).unwrap();
    pool.force_start(DEAD).unwrap();
    (dead, pool)
}

fn kind(error: &Error) -> ErrorKind {
    if error.is_connect() { ErrorKind::Connect } else { ErrorKind::Other }
}

fn rotating(protocol: Protocol, pool: BackendPool, on_others: bool) -> Stack {
    let errors = MoveOn::new().errors(kind).connect();
    let errors = if on_others { errors.other() } else { errors };
    Stack::new(RegionRotateLayer::new(pool).move_on(errors).layer(protocol.client()))
}

#[tokio::test]
async fn a_refused_connection_moves_a_request_on_where_the_user_says_so() {
    for protocol in BOTH {
        let azure = Azure::open(&["east"]).await;
        let (_dead, pool) = dead_or_alive(&azure);
        let stack = rotating(protocol, pool, false);
        // It takes three to be taken for dead.
        for _ in 0..3 {
            let answer = send(&stack, chat()).await;
            assert_eq!(attempts(&answer), [(DEAD, 0), (EAST, 200)], "{protocol:?}");
        }
        let answer = send(&stack, chat()).await;
        assert_eq!(attempts(&answer), [(EAST, 200)], "{protocol:?}: the dead one is asked last");
    }
}

#[tokio::test]
async fn a_refused_connection_is_the_callers_by_default() {
    for protocol in BOTH {
        let azure = Azure::open(&["east"]).await;
        let (_dead, pool) = dead_or_alive(&azure);
        let stack = rotation(protocol, pool);
        let error = soon(stack.oneshot(chat())).await.expect_err("nobody listens there");
        assert!(error.is_connect(), "{protocol:?}: {error:?}");
        assert_eq!(azure.attempts(), 0);
    }
}

#[tokio::test]
async fn a_reset_before_the_headers_is_the_callers_since_the_request_may_have_been_served() {
    for protocol in BOTH {
        let azure = Azure::open(&["east", "sweden"]).await;
        azure.script(EAST, [Fault::reset()]);
        let pool = azure.pool([EAST, "sweden/gpt-4o"]);
        pool.force_start(EAST).unwrap();
        let by_default = rotation(protocol, pool.clone());
        let error = soon(by_default.oneshot(chat())).await.expect_err("the reset");
        assert!(!error.is_connect(), "{protocol:?}: {error:?}");

        azure.script(EAST, [Fault::reset()]);
        let careful = rotating(protocol, pool, false);
        soon(careful.oneshot(chat())).await.expect_err("the reset");
        assert_eq!(azure.attempts(), 2, "{protocol:?}: one attempt for each request");
    }
}

#[tokio::test]
async fn a_reset_moves_a_request_on_for_a_user_who_takes_that_risk() {
    for protocol in BOTH {
        let azure = Azure::open(&["east", "sweden"]).await;
        azure.script(EAST, [Fault::reset()]);
        let pool = azure.pool([EAST, "sweden/gpt-4o"]);
        pool.force_start(EAST).unwrap();
        let answer = send(&rotating(protocol, pool, true), chat()).await;
        assert_eq!(attempts(&answer), [(EAST, 0), ("sweden/gpt-4o", 200)], "{protocol:?}");
    }
}

#[tokio::test]
async fn a_failing_server_is_left_by_default_as_in_azures_own_spillover_but_for_a_504() {
    for protocol in BOTH {
        let azure = Azure::open(&["east", "sweden"]).await;
        let pool = azure.pool([EAST, "sweden/gpt-4o"]);
        pool.force_start(EAST).unwrap();
        for status in [500, 502, 503] {
            azure.script(EAST, [Fault::status(status)]);
            let answer = send(&rotation(protocol, pool.clone()), chat()).await;
            let moved = [(EAST, status), ("sweden/gpt-4o", 200)];
            assert_eq!(attempts(&answer), moved, "{protocol:?}");
        }
        azure.script(EAST, [Fault::status(504)]);
        let answer = send(&rotation(protocol, pool.clone()), chat()).await;
        assert_eq!(attempts(&answer), [(EAST, 504)], "{protocol:?}");
        azure.script(EAST, [Fault::status(504)]);
        let rotate = RegionRotateLayer::new(pool).move_on(MoveOn::new().gateway_timeout());
        let answer = send(&Stack::new(rotate.layer(protocol.client())), chat()).await;
        assert_eq!(attempts(&answer), [(EAST, 504), ("sweden/gpt-4o", 200)], "{protocol:?}");
    }
}
