//! How long a connection may be silent: before a request, within its head, between requests.

use std::{mem, time::Duration};

use crate::{
    config::Limits,
    serve::{activity::Activity, clock},
};

/// How a connection is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Whatever is under way.
    Now,
    /// After what is under way.
    Orderly,
}

/// Looks at a connection again and again, instead of setting a timer for every request.
#[derive(Debug)]
pub(crate) struct Silence<'a> {
    activity: &'a Activity,
    limits: &'a Limits,
    look: Duration,
    /// For how long no request has been under way.
    idle: Duration,
    /// For how long, of that, a head has been waited for.
    heard: Duration,
    /// For how long nothing could be written.
    stuck: Duration,
    /// For how long nothing has moved on it, of the time without a request.
    still: Duration,
    begun: usize,
    moves: usize,
    is_stopping: bool,
}

impl<'a> Silence<'a> {
    /// Of a connection whose handshake took `spent` of the time for its first head.
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

    /// The gateway stops: a connection without a request has a moment left, to read its last answer and
    /// to take note of the end.
    pub(crate) fn stop(&mut self) {
        self.is_stopping = true;
        self.still = Duration::ZERO;
        self.look = self.look.min(LAST_MOMENT / 4);
    }

    pub(crate) const fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    /// When the connection is to end. One that was to end in an orderly way, and does not, is to end
    /// now.
    ///
    /// # Cancel safety
    ///
    /// A look that was waited for is waited for again.
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
        // Nothing was ever asked, or the head of a request began and does not end.
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
