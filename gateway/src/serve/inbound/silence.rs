//! Connection idle timeouts: before a request, within its head, and between requests.

use std::{mem, time::Duration};

use crate::{
    config::Limits,
    serve::{activity::Activity, clock},
};

/// How to end a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Drops requests in flight.
    Now,
    /// After the requests in flight.
    Orderly,
}

/// Checks a connection periodically, instead of setting a timer for every request.
#[derive(Debug)]
pub(crate) struct Silence<'a> {
    activity: &'a Activity,
    limits: &'a Limits,
    look: Duration,
    /// How long no request has been in flight.
    idle: Duration,
    /// How much of that time a head was awaited.
    heard: Duration,
    /// How long nothing could be written.
    stuck: Duration,
    /// How long there was no progress, of the time without a request.
    still: Duration,
    begun: usize,
    moves: usize,
    is_stopping: bool,
}

impl<'a> Silence<'a> {
    /// For a connection whose handshake used `spent` of the time for its first head.
    pub(crate) fn new(activity: &'a Activity, limits: &'a Limits, spent: Duration) -> Self {
        let shortest = limits.head_timeout.min(limits.idle_timeout);
        let look = (shortest / 4).clamp(Duration::from_millis(20), Duration::from_secs(10));
        let zero = Duration::ZERO;
        Self {
            activity,
            limits,
            look,
            idle: spent,
            heard: spent,
            stuck: zero,
            still: zero,
            begun: 0,
            moves: 0,
            is_stopping: false,
        }
    }

    /// The gateway stops: a connection without a request gets a moment to read its last answer and
    /// to notice the end.
    pub(crate) fn stop(&mut self) {
        self.is_stopping = true;
        self.still = Duration::ZERO;
        self.look = self.look.min(LAST_MOMENT / 4);
    }

    pub(crate) const fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    /// Returns when the connection has to end. A connection that should end in an orderly way, and
    /// does not, has to end now.
    ///
    /// # Cancel safety
    ///
    /// A wait that was dropped is repeated.
    pub(crate) async fn next(&mut self) -> End {
        loop {
            clock::sleep(self.look).await;
            if let Some(end) = self.look() {
                return end;
            }
        }
    }

    fn look(&mut self) -> Option<End> {
        let (activity, limits, look) = (self.activity, self.limits, self.look);
        let before = mem::replace(&mut self.begun, activity.begun());
        let moves = mem::replace(&mut self.moves, activity.moves());
        let is_idle = activity.is_idle() && before == self.begun;
        let is_still = is_idle && !activity.is_stuck() && moves == self.moves;
        // No request yet, or a request's head has begun and not ended.
        let is_head_due = self.begun == 0 || activity.is_head_begun();
        let longer = |time: Duration, is_so| if is_so { time + look } else { Duration::ZERO };
        self.idle = longer(self.idle, is_idle);
        self.heard = longer(self.heard, is_idle && is_head_due);
        self.stuck = longer(self.stuck, activity.is_stuck());
        self.still = longer(self.still, is_still);
        if self.is_stopping && self.still >= LAST_MOMENT
            || self.heard > limits.head_timeout
            || self.stuck > limits.idle_timeout
            || self.idle > limits.idle_timeout.saturating_mul(2)
        {
            return Some(End::Now);
        }
        (self.idle > limits.idle_timeout).then_some(End::Orderly)
    }
}

const LAST_MOMENT: Duration = Duration::from_secs(1);
