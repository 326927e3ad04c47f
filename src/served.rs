//! The account of one request, left on its response: who answered, after what.

use std::{iter, slice, sync::Arc, time::Duration};

use http::{Extensions, StatusCode};

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

    /// Whether this account says nothing that the account of an inner layer would not say.
    pub(crate) fn is_plain(&self) -> bool {
        self.first.is_none() && self.waited.is_zero() && !self.spilled && self.replayable
    }

    /// Appends the account of an inner layer, whose clock started `offset` after this one's.
    pub(crate) fn append(&mut self, inner: Self, offset: Duration) {
        for mut attempt in inner.first.into_iter().chain(inner.rest) {
            attempt.at = attempt.at.saturating_add(offset);
            self.push(attempt);
        }
        self.add_wait(inner.waited);
        self.spilled |= inner.spilled;
        self.replayable &= inner.replayable;
    }

    /// Moves the account of an inner layer out of `extensions`, or makes one of a single attempt.
    pub(crate) fn absorb(
        &mut self,
        extensions: Option<&mut Extensions>,
        offset: Duration,
        attempt: impl FnOnce() -> Attempt,
    ) {
        match extensions.and_then(Extensions::remove::<Self>) {
            Some(inner) => self.append(inner, offset),
            None => self.push(attempt()),
        }
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
