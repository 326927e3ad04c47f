//! The beginning of an HTTP/2 connection, which counts as a part of connecting.

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

/// Until when a server has to say its first word, which is SETTINGS (RFC 9113 section 3.4), and comes
/// before anything that answers a request.
///
/// Requests are on their way by then. They are sent elsewhere when it says nothing: servers say
/// their SETTINGS as soon as they begin with a connection, so this one has begun with none of them.
#[derive(Debug)]
pub(super) struct Preface {
    /// Until something was read.
    timer: Option<Pin<Box<Sleep>>>,
    state: State,
}

/// How far the beginning came: one of the constants below.
#[derive(Clone, Debug)]
pub(super) struct State(Arc<AtomicU8>);

const AWAITED: u8 = 0;
const HEARD: u8 = 1;
const LATE: u8 = 2;

impl Preface {
    /// Of a connection that was begun at `begun`, and may take `longest`.
    pub(super) fn new(begun: Instant, longest: Duration) -> Self {
        let passed = clock::now().saturating_duration_since(begun);
        let timer = Some(Box::pin(clock::sleep(longest.saturating_sub(passed))));
        Self { timer, state: State(Arc::new(AWAITED.into())) }
    }

    /// For whoever holds the connection.
    pub(super) fn state(&self) -> State {
        self.state.clone()
    }

    /// Something was read.
    pub(super) fn heard(&mut self) {
        self.timer = None;
        self.state.0.store(HEARD, Relaxed);
    }

    /// Fails, once it is too late, where nothing can be read.
    pub(super) fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Some(timer) = &mut self.timer else { return Poll::Pending };
        ready!(timer.poll_unpin(cx));
        self.timer = None;
        self.state.0.store(LATE, Relaxed);
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }
}

/// Whether a connection is one of HTTP/2 whose server has said nothing so far.
pub(super) fn is_awaited(connected: &Connected) -> bool {
    state(connected).is_some_and(|state| state != HEARD)
}

/// Whether it ended for that.
pub(super) fn is_late(connected: &Connected) -> bool {
    state(connected) == Some(LATE)
}

fn state(connected: &Connected) -> Option<u8> {
    let mut extras = Extensions::new();
    connected.get_extras(&mut extras);
    extras.get::<State>().map(|state| state.0.load(Relaxed))
}
