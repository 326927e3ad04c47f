//! A timeout for the server's HTTP/2 preface, which counts as part of connecting.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use futures::FutureExt;
use http::Extensions;
use hyper_util::client::legacy::connect::Connected;
use tokio::time::Sleep;

use crate::serve::clock;

/// The time by which a server has to send its first frame, which is SETTINGS (RFC 9113 section 3.4)
/// and precedes every response.
///
/// Requests have been sent by then. If the server sends nothing, they go to another backend:
/// servers send SETTINGS as soon as they start handling a connection, so this one has not started
/// any of them.
#[derive(Debug)]
pub(super) struct Preface {
    /// Present until something was read.
    timer: Option<Pin<Box<Sleep>>>,
    state: State,
}

/// The progress of the preface: one of the constants below.
#[derive(Clone, Debug)]
pub(super) struct State(Arc<AtomicU8>);

const AWAITED: u8 = 0;
const HEARD: u8 = 1;
const LATE: u8 = 2;

impl Preface {
    /// For a connection that began at `begun` and may take `longest`.
    pub(super) fn new(begun: Instant, longest: Duration) -> Self {
        let passed = clock::now().saturating_duration_since(begun);
        let timer = Some(Box::pin(clock::sleep(longest.saturating_sub(passed))));
        Self { timer, state: State(Arc::new(AWAITED.into())) }
    }

    /// For the owner of the connection.
    pub(super) fn state(&self) -> State {
        self.state.clone()
    }

    /// Something was read.
    pub(super) fn heard(&mut self) {
        self.timer = None;
        self.state.0.store(HEARD, Relaxed);
    }

    /// Fails after the timeout, if nothing can be read.
    pub(super) fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Some(timer) = &mut self.timer else { return Poll::Pending };
        ready!(timer.poll_unpin(cx));
        self.timer = None;
        self.state.0.store(LATE, Relaxed);
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }
}

/// Whether this is an HTTP/2 connection whose server has sent nothing so far.
pub(super) fn is_awaited(connected: &Connected) -> bool {
    state(connected).is_some_and(|state| state != HEARD)
}

/// Whether the connection ended for that reason.
pub(super) fn is_late(connected: &Connected) -> bool {
    state(connected) == Some(LATE)
}

fn state(connected: &Connected) -> Option<u8> {
    let mut extras = Extensions::new();
    connected.get_extras(&mut extras);
    extras.get::<State>().map(|state| state.0.load(Relaxed))
}
