//! The account of one request, left on its response: who answered, after what.

use std::{iter, mem, slice, sync::Arc, time::Duration};

use http::StatusCode;

use crate::classify::{Hint, Outcome};

/// The account of one request: which backend answered, every attempt before it, and the time
/// spent waiting. Each layer of this crate leaves it in the extensions of its response, where
/// nested layers find and extend it.
///
/// ```
/// # use tower_spillover::Served;
/// # fn log(response: http::Response<()>) {
/// if let Some(served) = response.extensions().get::<Served>() {
///     println!("{:?} after {} attempts", served.backend(), served.attempts().len());
/// }
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Served {
    /// The first attempt is stored inline: most requests have no second one.
    first: Option<Attempt>,
    rest: Vec<Attempt>,
    waited: Duration,
    spilled: bool,
    replayable: bool,
}

/// One attempt of a request.
#[derive(Clone, Debug)]
pub struct Attempt {
    backend: Arc<str>,
    at: Duration,
    status: Option<StatusCode>,
    outcome: Outcome,
}

impl Served {
    /// The backend that gave the answer; `None` when a layer answered by itself, without asking
    /// any backend, because all of them were known to refuse.
    pub fn backend(&self) -> Option<&str> {
        self.attempts().next_back().map(Attempt::backend)
    }

    /// Every attempt in order, the one that gave the answer last.
    pub fn attempts(&self) -> Attempts<'_> {
        Attempts(self.first.iter().chain(&self.rest))
    }

    /// The time spent waiting for a backend to reopen. The attempts themselves are not in it.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// Whether the answer came from the fallback tier.
    pub fn spilled(&self) -> bool {
        self.spilled
    }

    /// Whether the answer came from another backend than the first one tried.
    pub fn rotated(&self) -> bool {
        match (self.first.as_ref(), self.rest.last()) {
            (Some(first), Some(last)) => first.backend != last.backend,
            _ => false,
        }
    }

    /// Whether the request's body could have been sent again. If not, it got a single attempt.
    pub fn replayable(&self) -> bool {
        self.replayable
    }

    pub(crate) fn new() -> Self {
        Self {
            first: None,
            rest: Vec::new(),
            waited: Duration::ZERO,
            spilled: false,
            replayable: true,
        }
    }

    pub(crate) fn push(&mut self, attempt: Attempt) {
        if self.first.is_none() {
            self.first = Some(attempt);
        } else {
            self.rest.push(attempt);
        }
    }

    pub(crate) fn add_wait(&mut self, waited: Duration) {
        self.waited = self.waited.saturating_add(waited);
    }

    pub(crate) fn set_spilled(&mut self) {
        self.spilled = true;
    }

    pub(crate) fn set_unreplayable(&mut self) {
        self.replayable = false;
    }

    /// Appends the account of an inner layer, whose clock started `offset` after this one's.
    pub(crate) fn append(&mut self, mut inner: Self, offset: Duration) {
        inner.shift(offset);
        inner.first.into_iter().chain(inner.rest).for_each(|attempt| self.push(attempt));
        self.add_wait(inner.waited);
        self.spilled |= inner.spilled;
        self.replayable &= inner.replayable;
    }

    /// Puts what an outer layer knows before this account, whose clock started `offset` later.
    pub(crate) fn prepend(&mut self, earlier: Option<Box<Self>>, offset: Duration) {
        match earlier {
            Some(earlier) => {
                let inner = mem::replace(self, *earlier);
                self.append(inner, offset);
            }
            None => self.shift(offset),
        }
    }

    fn shift(&mut self, offset: Duration) {
        for attempt in self.first.iter_mut().chain(&mut self.rest) {
            attempt.at = attempt.at.saturating_add(offset);
        }
    }
}

impl Default for Served {
    fn default() -> Self {
        Self::new()
    }
}

impl Attempt {
    pub(crate) fn new(
        backend: Arc<str>,
        at: Duration,
        status: Option<StatusCode>,
        outcome: Outcome,
    ) -> Self {
        Self { backend, at, status, outcome }
    }

    /// The name of the backend that was asked.
    pub fn backend(&self) -> &str {
        &self.backend
    }

    /// When the attempt was started, counted from the request's arrival.
    pub fn at(&self) -> Duration {
        self.at
    }

    /// The status of the answer; `None` for a transport error or a credential that could not be had.
    pub fn status(&self) -> Option<StatusCode> {
        self.status
    }

    /// What the answer was taken for.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// How long the backend asked to wait; [`Hint::None`] unless it refused.
    pub fn hint(&self) -> Hint {
        match self.outcome {
            Outcome::Throttled(hint) => hint,
            _ => Hint::None,
        }
    }
}

/// The attempts of a request, in order; returned by [`Served::attempts`].
#[derive(Clone, Debug)]
pub struct Attempts<'a>(iter::Chain<std::option::Iter<'a, Attempt>, slice::Iter<'a, Attempt>>);

impl<'a> Iterator for Attempts<'a> {
    type Item = &'a Attempt;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl DoubleEndedIterator for Attempts<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.0.next_back()
    }
}

impl ExactSizeIterator for Attempts<'_> {}
