//! The network between the layers and the emulator: it delays, and keeps account.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::Full;
use tower_service::Service;

use super::{
    answer,
    ledger::Ledger,
    plan::{PTU, PTU_SERVER, Plan, RESOURCES, STANDARD},
};
use crate::clock;
use spillover_emulator::{Emulator, EmulatorBody, EmulatorError, EmulatorService};

/// What all parts of a run share.
#[derive(Debug)]
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) ledger: Ledger,
    pub(super) epoch: Instant,
    pub(super) emulator: Emulator,
}

/// The number of a request in its traffic, as an extension.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number(pub(super) usize);

/// The way to the emulator and back.
#[derive(Clone, Debug)]
pub(super) struct Network {
    service: EmulatorService,
    world: Arc<World>,
}

pub(super) type Answer = Result<Response<EmulatorBody>, EmulatorError>;

impl World {
    pub(super) fn now(&self) -> Duration {
        clock::now().saturating_duration_since(self.epoch)
    }

    /// Whether any Standard deployment has quota, and had it for so long that it can be known.
    pub(super) fn has_standard(&self) -> bool {
        let open = |resource| self.emulator.open_for(resource, STANDARD);
        RESOURCES.into_iter().filter_map(open).any(|since| since > NEWS)
    }

    pub(super) async fn sleep_until(&self, at: Duration) {
        clock::sleep_until(self.epoch + at).await;
    }
}

impl Network {
    pub(super) fn new(world: Arc<World>) -> Self {
        Self { service: world.emulator.service(), world }
    }

    pub(super) fn world(&self) -> &Arc<World> {
        &self.world
    }

    async fn deliver(mut self, request: Request<Full<Bytes>>) -> Answer {
        let World { plan, ledger, .. } = &*self.world;
        let index = number(&request);
        let server = server(request.uri());
        let sent = self.world.now();
        let leg = u64::from(ledger.send(index, sent)) * 2;
        self.world.sleep_until(sent + plan.delay(server, index, leg)).await;
        let reached = self.world.now();
        let mut answer = self.service.call(request);
        // Admission happens at the first poll: what is still pending then is being generated.
        let early = std::future::poll_fn(|cx| match Pin::new(&mut answer).poll(cx) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending => Poll::Ready(None),
        });
        let answer = match early.await {
            Some(answer) => answer?,
            None => {
                ledger.accept(index, server, reached);
                let answer = answer.await?;
                self.travel_back(server, index, leg).await;
                return self.as_told(answer).await;
            }
        };
        if answer.status().is_success() {
            ledger.accept(index, server, reached);
            self.travel_back(server, index, leg).await;
        } else {
            self.travel_back(server, index, leg).await;
            ledger.refused(index);
        }
        self.as_told(answer).await
    }

    /// The answer without what this service does not tell.
    async fn as_told(&self, answer: Response<EmulatorBody>) -> Answer {
        let Plan { hints, usage, .. } = self.world.plan;
        if answer.status().is_success() {
            return if usage { Ok(answer) } else { answer::without_usage(answer).await };
        }
        Ok(if hints { answer } else { answer::without_hints(answer) })
    }

    async fn travel_back(&self, server: usize, index: usize, leg: u64) {
        let delay = self.world.plan.delay(server, index, leg + 1);
        self.world.sleep_until(self.world.now() + delay).await;
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
    if uri.path().contains(PTU) {
        return PTU_SERVER;
    }
    let host = uri.host().unwrap_or_default();
    let region = RESOURCES.iter().position(|name| host.starts_with(name));
    1 + region.expect("requests go to the emulated resources")
}

/// More than the longest way back, with which every hint comes late.
const NEWS: Duration = Duration::from_millis(60);
