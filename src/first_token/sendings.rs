//! Both sendings of one request: when the second is due, and which answer is returned.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http::{Request, Response};
use tokio::time::Sleep;
use tower_service::Service;

use super::{
    eligible::may_run_twice,
    layer::{Config, Limit, LimitMode},
};
use crate::{
    AttemptBudget, Deadline, MaxWait, Served, TryCloneBody,
    classify::Outcome,
    clock,
    events::{Event, Source},
    request_copy::SavedRequest,
    served::Late,
    twin::Twin,
};

/// Both sendings of a request, except the future of the first.
pub(super) struct Sendings<S: Service<Request<B>>, B> {
    /// Readied again before the second sending.
    pub(super) inner: S,
    pub(super) second: Second<S::Future>,
    config: Arc<Config>,
    limit: Limit,
    /// The request of the second sending.
    request: SavedRequest<B>,
    twins: [Twin; 2],
    timer: AttemptTimer,
    /// When the second sending began.
    second_at: Instant,
    /// The result of one sending, while the other may still be answered.
    spare: Option<(Sending, Ended<S, B>)>,
}

type Ended<S, B> = Result<<S as Service<Request<B>>>::Response, <S as Service<Request<B>>>::Error>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    First,
    Second,
}

/// The second sending of a request.
pub(super) enum Second<F> {
    /// The first token is not late yet.
    NotYet,
    /// It is late, and the service is not ready for another request.
    Readying,
    UnderWay(Pin<Box<F>>),
    /// It has ended, or will not be made.
    Never,
}

impl<S, B, R> Sendings<S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
    B: TryCloneBody,
{
    /// Ready when the current attempt of the first sending has been unanswered for too long.
    pub(super) fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.timer.poll(self.twins[0].under_way(), self.limit.after, cx)
    }

    /// Ready when the first is to be dropped, since the second counts as accepted.
    pub(super) fn poll_moved_on(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.limit.mode {
            LimitMode::MoveOn => self.timer.poll(self.twins[1].under_way(), ACCEPTED_AFTER, cx),
            LimitMode::Hedge => Poll::Pending,
        }
    }

    /// Starts the second sending, if one is allowed.
    pub(super) fn begin(&mut self, now: Instant) {
        let may_begin = self.request.whole().is_some_and(|request| {
            let extensions = request.extensions();
            extensions.get().is_none_or(|&Deadline(deadline)| now < deadline)
                && extensions.get().is_none_or(AttemptBudget::any_left)
                && may_run_twice(request)
        });
        let begins = may_begin && self.config.budget.withdraw();
        self.second = if begins { Second::Readying } else { Second::Never };
        self.timer.restart();
    }

    /// Sends the request a second time, with the ready service.
    pub(super) fn send(&mut self, now: Instant) {
        // It may find no other backend, and then becomes due again later.
        let request = self.request.take_for_attempt(true);
        let mut request = request.expect("it is kept for the second sending");
        self.twins[1].clone().insert_in(request.extensions_mut());
        // It is late already, so it must not wait.
        request.extensions_mut().insert(MaxWait(Duration::ZERO));
        self.second_at = now;
        self.config.events.emit(Source::FirstToken, Event::SentTwice);
        self.second = Second::UnderWay(Box::pin(self.inner.call(request)));
    }

    /// Takes the result of a sending. Returns what the caller gets, unless the other one, which is
    /// the first if `is_first_left`, may still be answered.
    pub(super) fn ended(
        &mut self,
        sending: Sending,
        mut result: Result<Response<R>, S::Error>,
        is_first_left: bool,
    ) -> Option<Result<Response<R>, S::Error>> {
        if let Ok(response) = &mut result {
            self.config.rules.apply(response, Served::is_on, clock::wall);
        }
        let was_sent = self.twins[1].was_sent();
        if sending == Sending::Second && !was_sent {
            // It found no other backend, so nothing has changed.
            self.config.budget.give_back();
            // A service that cannot be readied must not be used again.
            self.second = if result.is_ok() { Second::NotYet } else { Second::Never };
            self.timer.restart();
            return self.spare.take().map(|(_, result)| result);
        }
        let is_other_left = match sending {
            Sending::First => matches!(self.second, Second::Readying | Second::UnderWay(_)),
            Sending::Second => is_first_left,
        };
        if sending == Sending::Second {
            self.second = Second::Never;
        }
        if is_other_left && rank(&result) > ResultRank::Served {
            self.spare = Some((sending, result));
            return None;
        }
        if is_other_left && !was_sent {
            self.config.budget.give_back();
        }
        Some(self.better_of(sending, result, was_sent))
    }

    /// What the caller gets: this result, or that of the other sending if it is better.
    fn better_of(
        &mut self,
        mut sending: Sending,
        mut result: Result<Response<R>, S::Error>,
        was_sent_twice: bool,
    ) -> Result<Response<R>, S::Error> {
        if let Some((other, spare)) = self.spare.take() {
            let (this, that) = (rank(&result), rank(&spare));
            // If both are alike, the second also accounts for the first.
            if that < this || (that == this && other == Sending::Second) {
                (sending, result) = (other, spare);
            }
        }
        let Ok(response) = &mut result else { return result };
        if response.status().is_success() {
            self.config.budget.deposit();
        }
        if was_sent_twice && let Some(served) = response.extensions_mut().remove::<Served>() {
            let late = match (sending, self.limit.mode) {
                (Sending::First, _) => Late::HedgeLost,
                (Sending::Second, LimitMode::MoveOn) => Late::MovedOn,
                (Sending::Second, LimitMode::Hedge) => Late::HedgeWon,
            };
            let [first, second] = &self.twins;
            let (others, offset) = match sending {
                Sending::First => (second.attempts(), Duration::ZERO),
                Sending::Second => (first.attempts(), first.since_arrival(self.second_at)),
            };
            response.extensions_mut().insert(served.beside(others, offset, late));
        }
        result
    }
}

impl<S: Service<Request<B>>, B> Sendings<S, B> {
    /// The first sending has started, with `twin`; `request` is a copy of what was sent.
    pub(super) fn new(
        inner: S,
        config: Arc<Config>,
        limit: Limit,
        request: SavedRequest<B>,
        twin: &Twin,
        now: Instant,
    ) -> Self {
        Self {
            inner,
            second: Second::NotYet,
            config,
            limit,
            request,
            twins: [twin.clone(), twin.other()],
            timer: AttemptTimer::default(),
            second_at: now,
            spare: None,
        }
    }
}

/// How good a result is for the caller; less is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ResultRank {
    Served,
    /// Every backend would reject this request.
    Rejected,
    /// Worth retrying after this time.
    Refused(Duration),
    Failed,
    Broken,
}

fn rank<R, E>(result: &Result<Response<R>, E>) -> ResultRank {
    let Ok(response) = result else { return ResultRank::Broken };
    let status = response.status();
    match Outcome::of_response(response, clock::wall) {
        Outcome::Throttled(hint) => ResultRank::Refused(hint.duration().unwrap_or(Duration::MAX)),
        Outcome::Answered if status.is_client_error() => ResultRank::Rejected,
        Outcome::Answered if !status.is_server_error() => ResultRank::Served,
        _ => ResultRank::Failed,
    }
}

/// Runs while one attempt is in flight, and restarts with the next one.
#[derive(Default)]
struct AttemptTimer {
    attempt: Option<u32>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl AttemptTimer {
    /// Ready when the `attempt` has been in flight for `time`.
    fn poll(&mut self, attempt: Option<u32>, time: Duration, cx: &mut Context<'_>) -> Poll<()> {
        if self.attempt != attempt {
            self.attempt = attempt;
            if attempt.is_some() {
                let until = clock::now() + time;
                match &mut self.sleep {
                    Some(sleep) => clock::reset(sleep.as_mut(), until),
                    None => self.sleep = Some(clock::sleep_until(until)),
                }
            }
        }
        match &mut self.sleep {
            Some(sleep) if attempt.is_some() => sleep.as_mut().poll(cx),
            _ => Poll::Pending,
        }
    }

    /// Restarts for the whole time.
    fn restart(&mut self) {
        self.attempt = None;
    }
}

/// Time without an answer after which a request counts as accepted: a refusal takes tens of
/// milliseconds, even across an ocean.
const ACCEPTED_AFTER: Duration = Duration::from_secs(1);
