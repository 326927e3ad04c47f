//! Cuts a standing queue: waiting saves money only if the PTU would otherwise go idle.

use std::time::Duration;

/// How much of its `max_wait` a request may use, from 0 to 1.
///
/// A queue that forms in a burst empties when the burst ends, and the requests in it fill capacity
/// that would have gone to waste. A queue that does not empty saves nothing: as many requests
/// spill as without it, and all the others wait besides. So a queue that kept most of the allowed
/// wait for [`patience`](crate::Gate::patience) is cut by half, again every few seconds while it
/// stands, and is allowed again in full as soon as the PTU has capacity to spare. The idea is
/// that of CoDel (RFC 8289), applied to the choice between waiting and paying.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    patience: Option<f64>,
    share: f64,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Short { relax_at: f64 },
    Long { cut_at: f64 },
}

impl Standing {
    pub(super) fn new(patience: Option<Duration>) -> Self {
        let patience = patience.map(|patience| patience.as_secs_f64());
        Self { patience, share: 1.0, state: State::Short { relax_at: 0.0 } }
    }

    /// The longest wait that is worth beginning when `budget` seconds are left.
    pub(super) fn allowed(&self, budget: f64) -> f64 {
        budget.min((budget * self.share).max(FLOOR))
    }

    /// A request arrives at `now` and would have to wait for `wait` of `budget` seconds, behind
    /// as many others as `jobs` says.
    pub(super) fn observe(&mut self, now: f64, wait: f64, budget: f64, jobs: f64) {
        let Some(patience) = self.patience else { return };
        // A few requests are no queue: one of ten empties in time once in six even at 120 % load.
        let few = self.share >= 1.0 && jobs <= FEW;
        if wait <= budget * self.share / 2.0 || few {
            match self.state {
                State::Short { relax_at } if now >= relax_at => {
                    self.share = (self.share * 1.25).min(1.0);
                    self.state = State::Short { relax_at: now + RELAX };
                }
                State::Short { .. } => {}
                State::Long { .. } => self.state = State::Short { relax_at: now + RELAX },
            }
        } else {
            match self.state {
                State::Short { .. } => self.state = State::Long { cut_at: now + patience },
                State::Long { cut_at } if now >= cut_at => {
                    self.share = (self.share / 2.0).max(SMALLEST);
                    self.state = State::Long { cut_at: now + AGAIN };
                }
                State::Long { .. } => {}
            }
        }
    }

    /// The PTU has capacity to spare: the queue has emptied.
    pub(super) const fn emptied(&mut self) {
        self.share = 1.0;
        self.state = State::Short { relax_at: 0.0 };
    }
}

/// Seconds of waiting that are always worth it: a few requests' worth of a busy PTU.
const FLOOR: f64 = 0.1;
const SMALLEST: f64 = 0.02;
const FEW: f64 = 6.0;
/// Seconds between two cuts.
const AGAIN: f64 = 3.0;
/// Seconds of a short queue before a little more waiting is tried.
const RELAX: f64 = 20.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(patience: Option<u64>, seconds: u32, wait: f64) -> Standing {
        let mut standing = Standing::new(patience.map(Duration::from_secs));
        for second in 0..seconds {
            standing.observe(f64::from(second), wait, 4.0, 100.0);
        }
        standing
    }

    #[test]
    fn a_burst_shorter_than_the_patience_may_wait_in_full() {
        assert_eq!(observed(Some(20), 20, 3.9).allowed(4.0), 4.0);
    }

    #[test]
    fn a_queue_that_stands_is_cut_again_and_again() {
        assert_eq!(observed(Some(20), 22, 3.9).allowed(4.0), 2.0);
        assert_eq!(observed(Some(20), 60, 3.9).allowed(4.0), FLOOR);
    }

    #[test]
    fn a_queue_that_emptied_may_wait_in_full_again() {
        let mut standing = observed(Some(20), 60, 3.9);
        standing.emptied();
        assert_eq!(standing.allowed(4.0), 4.0);
    }

    #[test]
    fn without_patience_nothing_is_cut() {
        assert_eq!(observed(None, 600, 3.9).allowed(4.0), 4.0);
    }
}
