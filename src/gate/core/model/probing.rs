//! When the naive gate sends a probe, out of the history.

use super::reference::{Event, Reference};
use crate::gate::core::{Nanos, rate_estimator::Trust};

/// SentBecause an attempt was made.
pub(super) enum SentBecause {
    /// Nothing was known of the PTU.
    Unasked,
    /// It was its turn by the model, or an answer made room.
    Turn,
    /// A trusted model is to be checked.
    Check,
    /// Silence says that the level is below the limit, as this one will find it when it `arrives`.
    Silence { arrives: Nanos },
}

impl Reference {
    /// When the head is to go.
    pub(super) fn due(&self) -> Nanos {
        let Some(at) = self.below_limit_at() else { return Nanos::MIN };
        let at = at - self.round_trip() / 2;
        let last = self.history.iter().rev().find_map(|event| match event {
            Event::Sent { why: SentBecause::Unasked, .. } => None,
            Event::Sent { at, .. } => Some(*at),
            _ => None,
        });
        let is_silent_at = last.map_or(Nanos::MIN, |at| at + self.long_silence());
        match self.trust() {
            Trust::Trusted if self.is_checking() => at.min(is_silent_at),
            Trust::Trusted => at,
            _ if self.under_way() < self.window() => at,
            _ => at.max(is_silent_at),
        }
    }

    /// For how long an attempt has to be silent to say something.
    pub(super) fn long_silence(&self) -> Nanos {
        let round_trip = self.round_trip();
        let silence = Nanos::max(round_trip + round_trip / 2, 20_000_000);
        match self.trust() {
            Trust::Contradicted => silence * 10,
            _ => silence / Nanos::try_from(self.window()).expect("few attempts are made"),
        }
    }

    /// SentBecause an attempt is made that goes `now`.
    pub(super) fn why(&self, now: Nanos) -> SentBecause {
        let arrives = now + self.round_trip() / 2;
        let (made, check_after) = self.attempts();
        let is_full = self.under_way() >= self.window();
        match self.trust() {
            Trust::Trusted if made == check_after => SentBecause::Check,
            Trust::Trusted if made > check_after => SentBecause::Silence { arrives },
            // What was sent before the refusal was not silent after it.
            Trust::TooFew if made > 0 && is_full => SentBecause::Silence { arrives },
            _ => SentBecause::Turn,
        }
    }

    /// The attempts whose answer is awaited.
    pub(super) fn under_way(&self) -> usize {
        self.history.iter().fold(0, |count, event| match event {
            Event::Sent { .. } => count + 1,
            Event::Gone { .. } | Event::Accepted { .. } => count - 1,
            _ => count,
        })
    }

    /// One attempt after a refusal, or when a check begins, and one more for each since that was
    /// admitted or made because of silence.
    pub(super) fn window(&self) -> usize {
        let is_start = |event: &&Event| {
            matches!(event, Event::Refused { .. } | Event::Sent { why: SentBecause::Check, .. })
        };
        let widens = |event: &&Event| {
            matches!(
                event,
                Event::Accepted { widens: true }
                    | Event::Sent { why: SentBecause::Silence { .. }, .. }
            )
        };
        let since = self.history.iter().rev().take_while(|event| !is_start(event));
        1 + since.filter(widens).count()
    }

    /// How many attempts were made since the last refusal, and after how many the model is
    /// checked.
    fn attempts(&self) -> (usize, usize) {
        let (mut made, mut check_after) = (0, 8);
        for event in &self.history {
            match event {
                Event::Sent { why: SentBecause::Unasked, .. } => (made, check_after) = (0, 8),
                Event::Sent { .. } => made += 1,
                Event::Refused { .. } => {
                    if made >= check_after {
                        check_after = usize::min(check_after * 2, 64);
                    }
                    made = 0;
                }
                _ => {}
            }
        }
        (made, check_after)
    }

    pub(super) fn is_checking(&self) -> bool {
        let (made, check_after) = self.attempts();
        made >= check_after
    }
}
