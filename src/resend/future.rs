//! The state machine of a request that may be sent more than once.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Request;
use pin_project_lite::pin_project;

use super::{Course, Step, spare::Held};
use crate::{TryCloneBody, classify::Outcome, clock};

pin_project! {
    /// A request on its course. Dropping it at any point drops the attempt, the response and the
    /// wait with it; nothing is left behind anywhere.
    ///
    /// Its parameters are the course, the request's body, and the course's lane, attempt, wait
    /// and answer; spelled out, they keep the private trait out of the public futures' bounds.
    pub(crate) struct Resend<C, B, L, F, W, A> {
        #[pin]
        state: State<L, F, W, A>,
        course: C,
        // What a later attempt would send; nothing once the last one has it.
        request: Held<B>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<L, F, W, A> {
        // An attempt is under way.
        Attempting { lane: L, #[pin] attempt: F },
        // No attempt, response or permit is held.
        Waiting { wait: W },
        // The service of the next attempt is not ready yet.
        Readying { lane: L },
        // Answered without an attempt.
        Answered { answer: Option<A> },
    }
}

impl<C, B> Resend<C, B, C::Lane, C::Attempt, C::Wait, C::Answer>
where
    C: Course<B>,
    B: TryCloneBody,
{
    /// The first attempt goes out at once, on a service that is ready.
    pub(crate) fn sending(mut course: C, lane: C::Lane, request: Request<B>) -> Self {
        let copy = copy(&course, lane, &request);
        let attempt = course.send(lane, request);
        Self { state: State::Attempting { lane, attempt }, course, request: copy }
    }

    /// The first step is `step`, with no service ready.
    pub(crate) fn starting(
        course: C,
        step: Step<C::Lane, C::Wait, C::Answer>,
        request: Request<B>,
    ) -> Self {
        Self { state: step.into(), course, request: Held::Whole(request) }
    }
}

impl<C, B> Future for Resend<C, B, C::Lane, C::Attempt, C::Wait, C::Answer>
where
    C: Course<B>,
    B: TryCloneBody,
{
    type Output = C::Answer;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let step = match this.state.as_mut().project() {
                // Attempting => Waiting | Readying | Ready
                StateProj::Attempting { lane, attempt } => {
                    let (lane, result) = (*lane, ready!(attempt.poll(cx)));
                    match this.course.classify(&result) {
                        Outcome::Answered => {
                            let held = this.request.is_there();
                            return Poll::Ready(this.course.answer(lane, result, held));
                        }
                        outcome => {
                            let held = this.request.whole();
                            this.course.refused(lane, clock::now(), outcome, result, held)
                        }
                    }
                }
                // Waiting => Waiting | Readying | Ready
                StateProj::Waiting { wait } => {
                    let waited = ready!(Pin::new(wait).poll(cx));
                    let request = this.request.whole().expect(HELD);
                    this.course.resume(clock::now(), waited, request)
                }
                // Readying => Attempting, or whatever follows when that cannot be
                StateProj::Readying { lane } => {
                    let lane = *lane;
                    let request = this.request.whole().expect(HELD);
                    match ready!(this.course.poll_ready(lane, cx, clock::now, request)) {
                        Ok(()) => {
                            let attempt = send(this.course, lane, this.request);
                            this.state.set(State::Attempting { lane, attempt });
                            continue;
                        }
                        Err(step) => step,
                    }
                }
                StateProj::Answered { answer } => {
                    let answer = answer.take().expect("a finished future is not polled again");
                    return Poll::Ready(answer);
                }
            };
            // The step is taken here, so that the attempt is dropped before anything else starts.
            this.state.set(step.into());
        }
    }
}

impl<L, F, W, A> From<Step<L, W, A>> for State<L, F, W, A> {
    fn from(step: Step<L, W, A>) -> Self {
        match step {
            Step::Send(lane) => Self::Readying { lane },
            Step::Wait(wait) => Self::Waiting { wait },
            Step::Answer(answer) => Self::Answered { answer: Some(answer) },
        }
    }
}

/// Sends the held request, and holds a copy of it when it may be needed again.
fn send<C, B>(course: &mut C, lane: C::Lane, held: &mut Held<B>) -> C::Attempt
where
    C: Course<B>,
    B: TryCloneBody,
{
    let request = held.take().expect(HELD);
    *held = copy(course, lane, &request);
    course.send(lane, request)
}

/// A copy of `request`, when it may be needed after an attempt on `lane`.
fn copy<C, B>(course: &C, lane: C::Lane, request: &Request<B>) -> Held<B>
where
    C: Course<B>,
    B: TryCloneBody,
{
    if course.may_resend(lane) { Held::copy(request) } else { Held::Nothing }
}

const HELD: &str = "a course waits and sends only while the request is held";
