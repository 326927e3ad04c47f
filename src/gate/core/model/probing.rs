//! When the naive gate makes its next attempt, derived from the history.

use super::{
    history::{Event, Refused, Sent, SentBecause},
    reference::Reference,
};
use crate::gate::core::{
    Nanos,
    prober::{
        BYPASS_AFTER_NS, CHECK_AND_TRIP_S, CHECK_FILLS, EXPLAINED_S, EXPLAINED_SHARE, MAX_CHECK_S,
        MAX_HINT_UNCHECKED_NS, MAX_UNMODELLED_WINDOW, MAX_WINDOW, MIN_CHECK_S,
    },
    time::{NEVER, from_seconds, seconds},
};

impl Reference {
    pub(super) fn next_attempt_at(&self) -> Nanos {
        let Some(sendable_at) = self.sendable_at() else { return Nanos::MIN };
        let in_time = if self.rate().is_some() || self.first_sent().is_none() {
            sendable_at
        } else {
            sendable_at.max(self.silent_since() + self.gap())
        };
        in_time.min(self.early().map_or_else(|| self.check_at(), |early| early + self.gap()))
    }

    /// Why the attempt at `now` is made.
    pub(super) fn why(&self, now: Nanos) -> SentBecause {
        let is_silent = |since: Nanos| now >= since + self.gap();
        match self.early() {
            Some(early) if is_silent(early) => {
                SentBecause::Silence { arrives: now + self.round_trip.one_way() }
            }
            Some(_) => SentBecause::Turn,
            None if self.sendable_at().is_some_and(|at| now < at) => SentBecause::Early,
            None if self.rate().is_none()
                && self.first_sent().is_some()
                && is_silent(self.silent_since()) =>
            {
                SentBecause::Another
            }
            None => SentBecause::Turn,
        }
    }

    /// The first attempt since the last refusal, unless it was cancelled, or an untracked one was
    /// refused.
    pub(super) fn first_sent(&self) -> Option<Nanos> {
        self.history.since_refusal().1.iter().fold(None, |first, event| match event {
            Event::Sent(sent) if sent.is_modelled() => first.or(Some(sent.at)),
            Event::Sent(_) => None,
            Event::Gone { attempt, .. } => first.filter(|at| *at != self.history.sent(*attempt).at),
            _ => first,
        })
    }

    /// Whether the PTU has gone without an attempt for so long that a request that will not wait may
    /// make one.
    pub(super) fn is_due_anyway(&self, now: Nanos) -> bool {
        let refused_at = self.history.since_refusal().0.map_or(NEVER, |refused| refused.decided);
        let last_sent = self.last_sent().map_or(NEVER, |(_, sent)| sent.at);
        now - refused_at.max(last_sent) >= BYPASS_AFTER_NS
    }

    /// Until when no attempt is needed, whatever the model and its hints say: the last refusal is
    /// recent, or silence is pending.
    pub(super) fn is_asked_by(&self) -> Nanos {
        let refused_at = self.history.since_refusal().0.map_or(NEVER, |last| last.decided);
        let known = refused_at.saturating_add(MAX_HINT_UNCHECKED_NS);
        known.max(self.early().map_or(NEVER, |early| early + self.round_trip.silence()))
    }

    /// Whether the model predicted the last refusal, its hint is not over, and the level is modelled
    /// above the limit.
    pub(super) fn is_surely_closed(&self, now: Nanos) -> bool {
        let is_explained = self.history.since_refusal().0.is_some_and(|last| last.is_explained());
        is_explained && self.reopens_after(now) && self.sendable_at().is_some_and(|at| at > now)
    }

    /// How long an attempt must be silent.
    fn gap(&self) -> Nanos {
        self.round_trip.silence() / self.window()
    }

    /// How many attempts are made in the time of one silence: more, the more were silent since the
    /// last refusal.
    fn window(&self) -> Nanos {
        let window = self.attempts().fold(1, |window, sent| match sent.why {
            SentBecause::Silence { .. } => (window + 1).min(MAX_WINDOW),
            SentBecause::Another => (window + 1).min(MAX_UNMODELLED_WINDOW),
            _ => window,
        });
        Nanos::from(window)
    }

    /// The last early attempt since the last refusal, unless it was cancelled.
    fn early(&self) -> Option<Nanos> {
        let is_early = |why| matches!(why, SentBecause::Early | SentBecause::Silence { .. });
        self.history.since_refusal().1.iter().fold(None, |early, event| match event {
            Event::Sent(sent) if is_early(sent.why) => Some(sent.at),
            Event::Gone { attempt, .. } => early.filter(|at| *at != self.history.sent(*attempt).at),
            _ => early,
        })
    }

    /// When the early attempt was sent whose outcome is awaited before any further one.
    pub(super) fn checked_at(&self) -> Option<Nanos> {
        self.early().filter(|_| self.window() == 1)
    }

    /// The last attempt, unless its outcome is known.
    fn silent_since(&self) -> Nanos {
        let Some((index, last)) = self.last_sent() else { return NEVER };
        let is_known = self.history.0[index..]
            .iter()
            .any(|event| matches!(event, Event::Known { sent_at } if *sent_at == last.at));
        if is_known { NEVER } else { last.at }
    }

    fn last_sent(&self) -> Option<(usize, Sent)> {
        let events = self.history.0.iter().enumerate().rev();
        events.into_iter().find_map(|(index, event)| match event {
            Event::Sent(sent) if sent.is_modelled() => Some((index, *sent)),
            _ => None,
        })
    }

    /// Attempts since the last refusal.
    fn attempts(&self) -> impl Iterator<Item = Sent> {
        self.history.since_refusal().1.iter().filter_map(|event| match event {
            Event::Sent(sent) => Some(*sent),
            _ => None,
        })
    }

    /// When the first early attempt since the last refusal is made.
    fn check_at(&self) -> Nanos {
        let closed_until = self.history.closed_until();
        if let Some(check) = self.rivals.yielding_check() {
            return closed_until.saturating_add(check);
        }
        let fill = self.history.since_refusal().0.map_or(0.0, |last| last.fill);
        let near = (CHECK_FILLS * fill).clamp(MIN_CHECK_S, MAX_CHECK_S);
        let far = CHECK_AND_TRIP_S - seconds(self.round_trip.network());
        let check = closed_until.saturating_add(from_seconds(near.min(far)));
        let refused_at = self.history.since_refusal().0.map_or(NEVER, |last| last.decided);
        check.min(refused_at.saturating_add(MAX_HINT_UNCHECKED_NS))
    }
}

impl Refused {
    /// Whether the model predicted it.
    pub(super) fn is_explained(&self) -> bool {
        let hint = seconds(self.closed_until - self.decided);
        self.error.is_some_and(|error| error <= EXPLAINED_SHARE * hint + EXPLAINED_S)
    }
}
