//! The network between the layers and the emulator: delays messages and records what happens.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::Full;
use tower_service::Service;

use super::{
    answer,
    hints::Hints,
    ledger::Ledger,
    open::OpenWatch,
    plan::{PTU, PTU_SERVER, Plan, RESOURCES, STANDARD, is_ptu, ptu_server},
};
use crate::clock;
use spillover_emulator::{Emulator, EmulatorBody, EmulatorError, ResponseFuture};
use tower_spillover::fleet::Local;

/// Shared by all parts of a run.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) plan: Plan,
    pub(super) ledger: Ledger,
    pub(super) epoch: Instant,
    pub(super) emulator: Emulator,
    pub(super) watch: Mutex<OpenWatch>,
    /// What the processes share, if they are a fleet.
    pub(super) store: Local,
}

/// A request's index in its traffic, as an extension.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number(pub(super) usize);

/// A connection from one process to the emulator.
#[derive(Clone, Debug)]
pub(super) struct Network {
    run: Arc<Run>,
    /// The place of its process.
    place: usize,
}

pub(super) type Answer = Result<Response<EmulatorBody>, EmulatorError>;

/// The immediate result of a request at a server.
pub(super) enum Handed {
    Answered(Answer),
    /// Admitted; the answer is being generated.
    Admitted(ResponseFuture),
}

impl Run {
    pub(super) fn now(&self) -> Duration {
        clock::now().saturating_duration_since(self.epoch)
    }

    /// Whether any Standard deployment has quota, and has had it for long enough for a client to
    /// know.
    pub(super) fn has_standard(&self) -> bool {
        let open = |resource| self.emulator.open_for(resource, STANDARD);
        RESOURCES.into_iter().filter_map(open).any(|since| since > MAX_NEWS_DELAY)
    }

    pub(super) async fn sleep_until(&self, at: Duration) {
        clock::sleep_until(self.epoch + at).await;
    }

    /// Delays a message one way to or from `server`.
    pub(super) async fn travel(&self, server: usize, request: usize, leg: u64) {
        let delay = self.plan.delay(server, request, leg);
        self.sleep_until(self.now() + delay).await;
    }

    /// Delivers a request that has reached `server`.
    pub(super) async fn hand_over(&self, server: usize, request: Request<Full<Bytes>>) -> Handed {
        let now = self.now();
        if server == PTU_SERVER
            && let Some(window) = self.plan.outage_at(now)
        {
            return Handed::Answered(window.answer());
        }
        let mut answer = self.emulator.service().call(request);
        // Admission happens at the first poll: if it is pending after that, the answer is being
        // generated.
        let early = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut answer).poll(cx))).await;
        self.look();
        match early {
            Poll::Ready(answer) => Handed::Answered(answer),
            Poll::Pending => Handed::Admitted(answer),
        }
    }

    /// Updates the open watch after an event.
    pub(super) fn look(&self) {
        let now = self.now();
        let closed_for = self.closed_for(now);
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        watch.observe(now, self.ledger.any_request_waits(), closed_for);
    }

    /// How long the PTU will refuse if nothing else happens.
    fn closed_for(&self, now: Duration) -> Duration {
        let parts = RESOURCES.iter().zip(&self.plan.parts);
        let of_parts = parts.enumerate().map(|(index, (resource, _))| {
            let level = self.emulator.closed_for(resource, PTU);
            match self.plan.outage_at(now).filter(|_| index == 0) {
                Some(window) => level.max(window.to - now),
                None => level,
            }
        });
        of_parts.min().unwrap_or(Duration::ZERO)
    }

    /// The process that had this request crashed.
    pub(super) fn lose(&self, index: usize) {
        self.ledger.lose(index, self.now());
        self.look();
    }
}

impl Handed {
    pub(super) async fn answer(self, run: &Run) -> Answer {
        match self {
            Self::Answered(answer) => answer,
            Self::Admitted(answer) => {
                let answer = answer.await;
                run.look();
                answer
            }
        }
    }

    pub(super) fn is_accepted(&self) -> bool {
        match self {
            Self::Answered(answer) => {
                answer.as_ref().is_ok_and(|answer| answer.status().is_success())
            }
            Self::Admitted(_) => true,
        }
    }
}

impl Network {
    pub(super) fn new(run: Arc<Run>, place: usize) -> Self {
        Self { run, place }
    }

    pub(super) fn place(&self) -> usize {
        self.place
    }

    pub(super) fn run(&self) -> &Arc<Run> {
        &self.run
    }

    async fn deliver(self, request: Request<Full<Bytes>>) -> Answer {
        let run = &*self.run;
        let Run { plan, ledger, .. } = run;
        let index = number(&request);
        let server = server(request.uri());
        let attempt = u64::from(ledger.send(index, server, run.now()));
        run.look();
        run.travel(server, index, 2 * attempt).await;
        let reached = run.now();
        ledger.reach(server, reached, &plan.outages);
        let handed = run.hand_over(server, request).await;
        let is_accepted = handed.is_accepted();
        if is_accepted {
            ledger.accept(index, server, reached);
        }
        let answer = match handed {
            // The service finishes an answer even if its caller has crashed.
            Handed::Admitted(_) if plan.crashes() => {
                let run = Arc::clone(&self.run);
                let answer = tokio::spawn(async move { handed.answer(&run).await });
                answer.await.expect("the service does not panic")
            }
            _ => handed.answer(run).await,
        };
        if !is_accepted && is_ptu(server) && !plan.refusal_time.is_zero() {
            run.sleep_until(run.now() + plan.refusal_time).await;
        }
        run.travel(server, index, 2 * attempt + 1).await;
        if !is_accepted {
            ledger.refused(index);
            run.look();
        }
        self.as_told(answer?, server, [index as u64, attempt]).await
    }

    /// Strips what this service does not send from the answer.
    async fn as_told(
        &self,
        answer: Response<EmulatorBody>,
        server: usize,
        parts: [u64; 2],
    ) -> Answer {
        let Plan { usage, seed, .. } = self.run.plan;
        let hints = self.run.plan.hints(server);
        if answer.status().is_success() {
            return if usage { Ok(answer) } else { answer::without_usage(answer).await };
        }
        let concerns = hints == Hints::Missing || is_ptu(server);
        let is_hint = answer.status() == StatusCode::TOO_MANY_REQUESTS;
        Ok(if concerns && (is_hint || hints == Hints::Missing) {
            hints.apply(answer, seed, parts)
        } else {
            answer
        })
    }
}

impl Service<Request<Full<Bytes>>> for Network {
    type Response = Response<EmulatorBody>;
    type Error = EmulatorError;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), EmulatorError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        Box::pin(self.clone().deliver(request))
    }
}

pub(super) fn number(request: &Request<Full<Bytes>>) -> usize {
    let number = request.extensions().get::<Number>();
    number.expect("every request of a simulation is numbered, and layers keep extensions").0
}

fn server(uri: &Uri) -> usize {
    let host = uri.host().unwrap_or_default();
    let region = RESOURCES.iter().position(|name| host.starts_with(name));
    let region = region.expect("requests go to the emulated resources");
    if uri.path().contains(PTU) { ptu_server(region) } else { 1 + region }
}

/// More than the longest one-way delay.
const MAX_NEWS_DELAY: Duration = Duration::from_millis(60);
