//! The response future of `SmartFallback`: the state machine of one request over two tiers.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower_service::Service;

use super::{
    SmartFallback,
    session::{NextStep, Race, Session, Tier},
    spill_budget::ChargeRequest,
};
use crate::{
    TryCloneBody,
    classify::Outcome,
    clock,
    gate::Waiter,
    policy::ClassifyError,
    request_copy::SavedRequest,
    sticky::{Recalling, TierScope},
};

pin_project! {
    /// The response future of [`SmartFallback`](super::SmartFallback).
    ///
    /// Dropping it at any point drops the attempt, the response and the wait.
    pub struct ResponseFuture<P, F, X, B>
    where
        P: Service<Request<B>>,
        F: Service<Request<B>>,
    {
        #[pin]
        state: State<P::Future, F::Future>,
        primary: P,
        fallback: F,
        classify_error: X,
        session: Session,
        // The request of a later attempt.
        request: SavedRequest<B>,
    }

    impl<P, F, X, B> PinnedDrop for ResponseFuture<P, F, X, B>
    where
        P: Service<Request<B>>,
        F: Service<Request<B>>,
    {
        fn drop(this: Pin<&mut Self>) {
            this.project().session.dropped();
        }
    }
}

pin_project! {
    #[project = StateProj]
    enum State<P, F>
    where
        P: Future,
    {
        // A fleet's store is asked which resource holds what the request refers to.
        Recalling { recall: Box<Recalling> },
        // The request was sent to a tier.
        Attempting { #[pin] attempt: Attempt<P, F> },
        // Holds no attempt, response or permit while it sleeps, queues, or waits for either tier.
        Sleeping { sleep: Pin<Box<Sleep>> },
        Queued { waiter: Box<Waiter> },
        Racing { race: Box<Race> },
        // The fleet's store is asked to charge the spill. Holds the refusal, which is returned if
        // nothing is left.
        Asking { asking: Box<Asking<P::Output>> },
        // The tier is chosen, but not ready yet.
        Readying { tier: Tier },
        // A refusal was returned.
        Finished,
    }
}

pin_project! {
    #[project = AttemptProj]
    enum Attempt<P, F> {
        Primary { #[pin] future: P },
        Fallback { #[pin] future: F },
    }
}

/// A request that asks the fleet's store.
struct Asking<T> {
    asks: Box<ChargeRequest>,
    refused: Option<RefusedResult<T>>,
}

/// What a tier refused or failed with.
struct RefusedResult<T> {
    tier: Tier,
    outcome: Outcome,
    result: T,
}

impl<P, F, X, B> ResponseFuture<P, F, X, B>
where
    P: Service<Request<B>> + Clone,
    F: Service<Request<B>> + Clone,
    X: Clone,
    B: TryCloneBody,
{
    /// The future of a call of `service`, whose primary, `primary`, was polled ready.
    pub(super) fn new(
        service: &SmartFallback<P, F, X>,
        mut primary: P,
        mut request: Request<B>,
    ) -> Self {
        let (now, config) = (clock::now(), Arc::clone(&service.config));
        let recall = config.split.as_ref().and_then(|split| split.recall(&mut request));
        if let Some(recall) = recall {
            return Self::recalling(service, recall, request, now);
        }
        let confined = config.split.as_ref().map(|split| split.confine(&mut request, now));
        let mut session = Session::new(config, confined.unwrap_or_default(), now);
        let (state, request) = match session.start(now, &request) {
            NextStep::Send(Tier::Primary) => {
                let copy = SavedRequest::copy_or_outline(true, &request, session.resends());
                session.prepare(Tier::Primary, &mut request);
                let attempt = Attempt::Primary { future: primary.call(request) };
                (State::Attempting { attempt }, copy)
            }
            next => {
                // An unused service releases the permit that came with its readiness.
                primary = service.primary.clone();
                (next.into(), SavedRequest::Whole(request, None))
            }
        };
        let (fallback, classify_error) = (service.fallback.clone(), service.classify_error.clone());
        Self { state, primary, fallback, classify_error, session, request }
    }

    /// The same, if `recall` is awaited first.
    #[cold]
    fn recalling(
        service: &SmartFallback<P, F, X>,
        recall: Box<Recalling>,
        request: Request<B>,
        now: Instant,
    ) -> Self {
        Self {
            state: State::Recalling { recall },
            primary: service.primary.clone(),
            fallback: service.fallback.clone(),
            classify_error: service.classify_error.clone(),
            session: Session::new(Arc::clone(&service.config), TierScope::default(), now),
            request: SavedRequest::Whole(request, None),
        }
    }
}

impl<P, F, X, B, R> Future for ResponseFuture<P, F, X, B>
where
    P: Service<Request<B>, Response = Response<R>> + Clone,
    F: Service<Request<B>, Response = Response<R>, Error = P::Error>,
    X: ClassifyError<P::Error>,
    B: TryCloneBody,
{
    type Output = Result<Response<R>, P::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let session = this.session;
        loop {
            let next = match this.state.as_mut().project() {
                // Recalling => Sleeping | Queued | Racing | Asking | Readying
                StateProj::Recalling { recall } => {
                    ready!(Pin::new(&mut **recall).poll(cx));
                    session.after_recall(clock::now(), this.request.whole_mut().expect(KEPT))
                }
                // Attempting => Sleeping | Queued | Racing | Readying | Ready
                StateProj::Attempting { attempt } => {
                    let tier = attempt.tier();
                    let mut result = ready!(attempt.poll(cx));
                    session.read(&mut result);
                    match session.classify(&result, this.classify_error) {
                        Outcome::Answered => {
                            session.answered(tier, &mut result, this.request.is_kept());
                            return Poll::Ready(result);
                        }
                        outcome => {
                            session.note_traffic(&result, this.request);
                            let (now, request) = (clock::now(), this.request.whole());
                            match session.refused(
                                tier,
                                now,
                                outcome,
                                &mut result,
                                this.classify_error,
                                request,
                            ) {
                                NextStep::Return => {
                                    // The caller may keep the completed future alive.
                                    this.state.set(State::Finished);
                                    return Poll::Ready(result);
                                }
                                NextStep::Ask(asks) => {
                                    let refused = Some(RefusedResult { tier, outcome, result });
                                    let asking = Box::new(Asking { asks, refused });
                                    this.state.set(State::Asking { asking });
                                    continue;
                                }
                                next => next,
                            }
                        }
                    }
                }
                // Sleeping => Sleeping | Queued | Racing | Readying
                StateProj::Sleeping { sleep } => {
                    ready!(sleep.as_mut().poll(cx));
                    session.after_sleep(clock::now(), this.request.whole().expect(KEPT))
                }
                // Queued => Sleeping | Queued | Racing | Readying
                StateProj::Queued { waiter } => {
                    let place = waiter.place();
                    let admission = ready!(Pin::new(&mut **waiter).poll(cx));
                    session.note_alone(waiter.is_alone());
                    let request = this.request.whole().expect(KEPT);
                    session.after_queue(clock::now(), admission, place, request)
                }
                // Racing => Sleeping | Queued | Racing | Readying
                StateProj::Racing { race } => {
                    let winner = ready!(Pin::new(&mut **race).poll(cx));
                    let request = this.request.whole().expect(KEPT);
                    session.after_race(clock::now(), winner, request)
                }
                // Asking => Sleeping | Queued | Racing | Asking | Readying | Ready
                StateProj::Asking { asking } => {
                    let answer = ready!(Pin::new(&mut asking.asks).poll(cx));
                    let refused = asking.refused.take();
                    let (now, request) = (clock::now(), this.request.whole().expect(KEPT));
                    match (session.after_asking(now, answer, refused.is_some(), request), refused) {
                        (NextStep::Return, Some(RefusedResult { tier, outcome, mut result })) => {
                            session.refused_by_fleet(tier, now, outcome, &mut result, request);
                            this.state.set(State::Finished);
                            return Poll::Ready(result);
                        }
                        (NextStep::Ask(asks), refused) => {
                            this.state
                                .set(State::Asking { asking: Box::new(Asking { asks, refused }) });
                            continue;
                        }
                        (next, _) => next,
                    }
                }
                // Readying => Attempting | Sleeping | Queued | Racing | Readying | Ready
                StateProj::Readying { tier } => {
                    let tier = *tier;
                    let is_ready = match tier {
                        Tier::Primary => this.primary.poll_ready(cx),
                        Tier::Fallback => this.fallback.poll_ready(cx),
                    };
                    if let Err(error) = ready!(is_ready) {
                        session.give_up();
                        return Poll::Ready(Err(error));
                    }
                    match session.closed_meanwhile(tier, this.request.whole().expect(KEPT)) {
                        Some(next) => {
                            *this.primary = this.primary.clone();
                            next
                        }
                        None => {
                            session.note_resend();
                            let request = this.request.whole().expect(KEPT);
                            let may_be_resent = session.may_come_again(tier, request);
                            let request = this.request.take_for_attempt(may_be_resent);
                            let mut request = request.expect(KEPT);
                            session.prepare(tier, &mut request);
                            let attempt = match tier {
                                Tier::Primary => {
                                    Attempt::Primary { future: this.primary.call(request) }
                                }
                                Tier::Fallback => {
                                    Attempt::Fallback { future: this.fallback.call(request) }
                                }
                            };
                            this.state.set(State::Attempting { attempt });
                            continue;
                        }
                    }
                }
                StateProj::Finished => unreachable!("a finished future is not polled again"),
            };
            // The attempt is dropped here, before anything else starts.
            this.state.set(next.into());
        }
    }
}

impl<P, F> Attempt<P, F> {
    const fn tier(&self) -> Tier {
        match self {
            Self::Primary { .. } => Tier::Primary,
            Self::Fallback { .. } => Tier::Fallback,
        }
    }
}

impl<P: Future, F: Future<Output = P::Output>> Future for Attempt<P, F> {
    type Output = P::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            AttemptProj::Primary { future } => future.poll(cx),
            AttemptProj::Fallback { future } => future.poll(cx),
        }
    }
}

impl<P: Future, F> From<NextStep> for State<P, F> {
    fn from(next: NextStep) -> Self {
        match next {
            NextStep::Send(tier) => Self::Readying { tier },
            NextStep::Sleep(sleep) => Self::Sleeping { sleep },
            NextStep::Queue(waiter) => Self::Queued { waiter },
            NextStep::Race(race) => Self::Racing { race },
            NextStep::Ask(asks) => {
                Self::Asking { asking: Box::new(Asking { asks, refused: None }) }
            }
            NextStep::Return => unreachable!("without a refusal there is none to return"),
        }
    }
}

const KEPT: &str = "the request is kept until the fallback is sent it";

impl<P, F, X, B> fmt::Debug for ResponseFuture<P, F, X, B>
where
    P: Service<Request<B>>,
    F: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
