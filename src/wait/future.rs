//! The response future of `Wait`: the state machine of one request that may wait.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    TurnWaiter, Wait,
    session::{NextStep, Session},
};
use crate::{TryCloneBody, classify::Outcome, clock, request_copy::SavedRequest};

pin_project! {
    /// The response future of [`Wait`](super::Wait).
    ///
    /// Dropping it at any point drops the attempt, the response and the wait.
    pub struct ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S::Future>,
        inner: S,
        session: Session,
        // The request of a later attempt.
        request: SavedRequest<B>,
    }

    impl<S, B> PinnedDrop for ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        fn drop(this: Pin<&mut Self>) {
            this.project().session.dropped();
        }
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Attempting { #[pin] attempt: F },
        // Holds no attempt, response or permit.
        Waiting { waiter: Box<TurnWaiter> },
        // Its turn has come, but the service is not ready yet.
        Readying,
        // A refusal was returned.
        Finished,
    }
}

impl<S, B> ResponseFuture<S, B>
where
    S: Service<Request<B>> + Clone,
    B: TryCloneBody,
{
    /// The future of a call of `service`, whose inner service, `inner`, was polled ready.
    pub(super) fn new(service: &Wait<S>, mut inner: S, mut request: Request<B>) -> Self {
        let now = clock::now();
        let mut session = Session::new(Arc::clone(&service.config), now);
        let (state, request) = match session.start(now, &request) {
            NextStep::Wait(waiter) => {
                // An unused service releases the permit that came with its readiness.
                inner = service.inner.clone();
                (State::Waiting { waiter }, SavedRequest::Whole(request, None))
            }
            NextStep::Send | NextStep::Return => {
                let copy = SavedRequest::copy_if(true, &request);
                session.prepare(&mut request);
                (State::Attempting { attempt: inner.call(request) }, copy)
            }
        };
        Self { state, inner, session, request }
    }
}

impl<S, B, R> Future for ResponseFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    B: TryCloneBody,
{
    type Output = Result<Response<R>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let session = this.session;
        loop {
            match this.state.as_mut().project() {
                // Attempting => Waiting | Ready
                StateProj::Attempting { attempt } => {
                    let mut result = ready!(attempt.poll(cx));
                    session.read(&mut result);
                    let outcome = match &result {
                        Ok(response) => Outcome::of_response(response, clock::wall),
                        Err(_) => Outcome::Answered,
                    };
                    let Outcome::Throttled(hint) = outcome else {
                        session.answered(&mut result, this.request.is_kept());
                        return Poll::Ready(result);
                    };
                    match session.refused(hint, &mut result, this.request.whole()) {
                        // The attempt is dropped here, before anything else starts.
                        NextStep::Wait(waiter) => this.state.set(State::Waiting { waiter }),
                        NextStep::Send | NextStep::Return => {
                            // The caller may keep the completed future alive.
                            this.state.set(State::Finished);
                            return Poll::Ready(result);
                        }
                    }
                }
                // Waiting => Readying
                StateProj::Waiting { waiter } => {
                    let permit = ready!(Pin::new(&mut **waiter).poll(cx));
                    session.after_wait(clock::now(), permit);
                    this.state.set(State::Readying);
                }
                // Readying => Attempting | Ready
                StateProj::Readying => {
                    if let Err(error) = ready!(this.inner.poll_ready(cx)) {
                        session.give_up();
                        return Poll::Ready(Err(error));
                    }
                    let may_be_resent = session.may_come_again();
                    let mut request = this.request.take_for_attempt(may_be_resent).expect(KEPT);
                    session.prepare(&mut request);
                    let attempt = this.inner.call(request);
                    this.state.set(State::Attempting { attempt });
                }
                StateProj::Finished => unreachable!("a finished future is not polled again"),
            }
        }
    }
}

const KEPT: &str = "the request is kept until it is answered";

impl<S, B> fmt::Debug for ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
