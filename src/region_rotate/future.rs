//! The response future of `RegionRotate`: the state machine of one request over a pool.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use http::{Request, Response, StatusCode};
use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower_service::Service;

use super::{RegionRotate, session::Session};
use crate::{
    ResponseBody, TryCloneBody, backend::Unnameable, classify::Outcome, clock,
    policy::ClassifyError, random, request_copy::SavedRequest, sticky::Recalling,
};

pin_project! {
    /// The response future of [`RegionRotate`](super::RegionRotate).
    ///
    /// Dropping it at any point drops the attempt and the response.
    pub struct ResponseFuture<S, X, B, R>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S::Future, R>,
        inner: S,
        classify_error: X,
        session: Session,
        // The request of a later attempt.
        request: SavedRequest<B>,
    }

    impl<S, X, B, R> PinnedDrop for ResponseFuture<S, X, B, R>
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
    enum State<F, R> {
        // A fleet's store is asked which resource holds what the request refers to.
        Recalling { recall: Box<Recalling> },
        // The request was sent to the session's backend.
        Attempting { #[pin] attempt: F },
        // The token is not here yet, or the service is not ready.
        Readying,
        // Only backends that could not be connected to are left. Nothing is held meanwhile.
        Pausing { sleep: Pin<Box<Sleep>> },
        // No backend was open at the call; without a response, a refusal was returned.
        Closed { response: Option<Response<ResponseBody<R>>> },
    }
}

impl<S, X, B, R> ResponseFuture<S, X, B, R>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    X: ClassifyError<S::Error> + Clone,
    B: TryCloneBody,
{
    /// The future of a call of `service`, whose inner service, `inner`, was polled ready.
    pub(super) fn new(service: &RegionRotate<S, X>, mut inner: S, mut request: Request<B>) -> Self {
        let (now, config) = (clock::now(), Arc::clone(&service.config));
        if let Some(recall) = config.routing.recall(&config.pool, &mut request) {
            return Self::recalling(service, recall, request, now);
        }
        let routing = config.routing.route(&config.pool, &mut request, now);
        let mut session = Session::new(config, routing, now, random::draw());
        session.heed(request.extensions());
        let is_open = session.choose(now, &request) || session.go_on_as_default(now, &mut request);
        let (state, request) = if is_open && session.has_token() {
            let may_be_resent = session.may_be_sent_again(X::FINDS_KINDS, &request);
            let copy = SavedRequest::copy_or_outline(may_be_resent, &request, session.resends());
            match session.address(&mut request) {
                Ok(()) => (State::Attempting { attempt: inner.call(request) }, copy),
                Err(Unnameable) => {
                    inner = service.inner.clone();
                    let response = Some(session.unnameable());
                    (State::Closed { response }, SavedRequest::Nothing)
                }
            }
        } else {
            // An unused service releases the permit that came with its readiness.
            inner = service.inner.clone();
            let state = if is_open {
                State::Readying
            } else {
                let response = session.closed(now, StatusCode::TOO_MANY_REQUESTS, &request);
                State::Closed { response: Some(response) }
            };
            (state, SavedRequest::Whole(request, None))
        };
        let classify_error = service.classify_error.clone();
        Self { state, inner, classify_error, session, request }
    }

    /// The same, if `recall` is awaited first.
    #[cold]
    fn recalling(
        service: &RegionRotate<S, X>,
        recall: Box<Recalling>,
        request: Request<B>,
        now: Instant,
    ) -> Self {
        let config = Arc::clone(&service.config);
        let mut session = Session::new(config, None, now, random::draw());
        session.heed(request.extensions());
        Self {
            state: State::Recalling { recall },
            inner: service.inner.clone(),
            classify_error: service.classify_error.clone(),
            session,
            request: SavedRequest::Whole(request, None),
        }
    }
}

impl<S, X, B, R> Future for ResponseFuture<S, X, B, R>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    X: ClassifyError<S::Error>,
    B: TryCloneBody,
{
    type Output = Result<Response<ResponseBody<R>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let session = this.session;
        loop {
            match this.state.as_mut().project() {
                // Recalling => Readying | Ready
                StateProj::Recalling { recall } => {
                    ready!(Pin::new(&mut **recall).poll(cx));
                    let (now, request) = (clock::now(), this.request.whole_mut().expect(KEPT));
                    session.route(now, request);
                    if !session.choose(now, request) && !session.go_on_as_default(now, request) {
                        let status = StatusCode::TOO_MANY_REQUESTS;
                        return Poll::Ready(Ok(session.closed(now, status, request)));
                    }
                    this.state.set(State::Readying);
                }
                // Attempting => Readying | Pausing | Ready
                StateProj::Attempting { attempt } => {
                    let mut result = ready!(attempt.poll(cx));
                    session.read(&mut result);
                    let is_kept = this.request.is_kept();
                    let outcome = session.classify(&result, this.classify_error);
                    if outcome == Outcome::Answered {
                        return Poll::Ready(session.answered(result, is_kept));
                    }
                    let now = clock::now();
                    let request = &*this.request;
                    session.learn(now, outcome, &mut result, this.classify_error, request);
                    let goes_on = is_kept
                        && (session.choose_after(outcome, now, request)
                            || session.go_on_again_as_default(outcome, now, this.request));
                    // The attempt is dropped here, before anything else starts.
                    if goes_on {
                        this.state.set(State::Readying);
                    } else if session.has_unreached()
                        && let Some(request) = this.request.whole()
                        && let Some(until) = session.pause(now, request.extensions())
                    {
                        this.state.set(State::Pausing { sleep: clock::sleep_until(until) });
                    } else {
                        let response = session.refused(now, outcome, result, this.request);
                        // The caller may keep the completed future alive.
                        this.state.set(State::Closed { response: None });
                        return Poll::Ready(response);
                    }
                }
                // Pausing => Readying | Ready
                StateProj::Pausing { sleep } => {
                    ready!(sleep.as_mut().poll(cx));
                    let (now, request) = (session.resume(), &*this.request);
                    if !session.choose(now, request) {
                        let status = StatusCode::TOO_MANY_REQUESTS;
                        return Poll::Ready(Ok(session.closed(now, status, request)));
                    }
                    this.state.set(State::Readying);
                }
                // Readying => Attempting | Readying | Ready
                StateProj::Readying => {
                    // The credential comes first: a service must not be kept ready while a token is
                    // fetched.
                    let (now, status) = if ready!(session.poll_token(cx)).is_err() {
                        let now = clock::now();
                        (now, session.without_token(now))
                    } else {
                        if let Err(error) = ready!(this.inner.poll_ready(cx)) {
                            session.give_up();
                            return Poll::Ready(Err(error));
                        }
                        let Some(now) = session.closed_meanwhile(&*this.request) else {
                            session.note_resend();
                            let may_be_resent =
                                session.may_be_sent_again(X::FINDS_KINDS, &*this.request);
                            let request = this.request.take_or_outline(may_be_resent);
                            let mut request = request.expect(KEPT);
                            if let Err(Unnameable) = session.address(&mut request) {
                                *this.inner = this.inner.clone();
                                return Poll::Ready(Ok(session.unnameable()));
                            }
                            let attempt = this.inner.call(request);
                            this.state.set(State::Attempting { attempt });
                            continue;
                        };
                        // The next backend may have a token to fetch: do not keep the service ready.
                        *this.inner = this.inner.clone();
                        (now, StatusCode::TOO_MANY_REQUESTS)
                    };
                    if !session.choose(now, &*this.request)
                        && !session.go_on_again_as_default(Outcome::Answered, now, this.request)
                    {
                        return Poll::Ready(Ok(session.closed(now, status, &*this.request)));
                    }
                }
                StateProj::Closed { response } => {
                    let response = response.take().expect("a finished future is not polled again");
                    return Poll::Ready(Ok(response));
                }
            }
        }
    }
}

const KEPT: &str = "the request is kept until it is sent";

impl<S, X, B, R> fmt::Debug for ResponseFuture<S, X, B, R>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
