//! What a layer brings to the shared future: where attempts go, and what answers mean.

use std::{
    future::Future,
    task::{Context, Poll},
    time::Instant,
};

use http::Request;

use crate::classify::Outcome;

/// What happens next to a request.
#[derive(Debug)]
pub(crate) enum Step<L, W, A> {
    /// Send it on this lane.
    Send(L),
    /// Send nothing before this is over, then ask again.
    Wait(W),
    /// Give the caller this.
    Answer(A),
}

/// Whether an attempt may be made now; otherwise what follows instead.
pub(crate) type Readied<L, W, A> = Result<(), Step<L, W, A>>;

/// The course of one request through one layer.
///
/// It decides and remembers; [`Resend`](super::Resend) holds the request, polls, reads the clock
/// and sleeps.
pub(crate) trait Course<B> {
    /// Where an attempt goes: a tier, a backend.
    type Lane: Copy;
    /// An attempt under way.
    type Attempt: Future;
    /// What is waited for, holding nothing else.
    type Wait: Future + Unpin;
    /// What the caller gets.
    type Answer;

    /// Readies `lane` for an attempt: its credential first, then its service.
    ///
    /// There is to be no attempt when it cannot be readied, or when another request found it closed
    /// in the meantime; its service is not kept ready then.
    fn poll_ready(
        &mut self,
        lane: Self::Lane,
        cx: &mut Context<'_>,
        now: impl FnOnce() -> Instant,
        request: &Request<B>,
    ) -> Poll<Readied<Self::Lane, Self::Wait, Self::Answer>>;

    /// Whether the request may have to be sent again after an attempt on `lane`. If not, it is
    /// not cloned for it.
    fn may_resend(&self, lane: Self::Lane) -> bool;

    /// Sends `request` on `lane`, whose service is ready.
    fn send(&mut self, lane: Self::Lane, request: Request<B>) -> Self::Attempt;

    /// What the result of an attempt is taken for.
    fn classify(&self, result: &<Self::Attempt as Future>::Output) -> Outcome;

    /// The answer that an attempt on `lane` gave, for the caller. When the request is not `held`
    /// any more, it could not have been sent again.
    fn answer(
        &mut self,
        lane: Self::Lane,
        result: <Self::Attempt as Future>::Output,
        held: bool,
    ) -> Self::Answer;

    /// Chooses what to do after an attempt on `lane` that did not give an answer. When the
    /// request is not `held` any more, it cannot be sent again.
    fn refused(
        &mut self,
        lane: Self::Lane,
        now: Instant,
        outcome: Outcome,
        result: <Self::Attempt as Future>::Output,
        held: Option<&Request<B>>,
    ) -> Step<Self::Lane, Self::Wait, Self::Answer>;

    /// Chooses what to do after a wait.
    fn resume(
        &mut self,
        now: Instant,
        waited: <Self::Wait as Future>::Output,
        request: &Request<B>,
    ) -> Step<Self::Lane, Self::Wait, Self::Answer>;
}
