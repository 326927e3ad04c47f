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
    ledger::Ledger,
    plan::{PTU, PTU_SERVER, Plan, RESOURCES},
};
use crate::{
    emulator::{EmulatorBody, EmulatorError, EmulatorService},
    resend::clock,
};

/// What all parts of a run share.
#[derive(Debug)]
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) ledger: Ledger,
    pub(super) epoch: Instant,
}

/// The number of a request in its traffic, as an extension.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number(pub(super) usize);

/// The way to the emulator and back.
#[derive(Clone, Debug)]
pub(super) struct Network {
    emulator: EmulatorService,
    world: Arc<World>,
}

pub(super) type Answer = Result<Response<EmulatorBody>, EmulatorError>;

impl World {
    pub(super) fn now(&self) -> Duration {
        clock::now().saturating_duration_since(self.epoch)
    }

    pub(super) async fn sleep_until(&self, at: Duration) {
        clock::sleep_until(self.epoch + at).await;
    }
}

impl Network {
    pub(super) fn new(emulator: EmulatorService, world: Arc<World>) -> Self {
        Self { emulator, world }
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
        let mut answer = self.emulator.call(request);
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
                return Ok(answer);
            }
        };
        if answer.status().is_success() {
            ledger.accept(index, server, reached);
            self.travel_back(server, index, leg).await;
        } else {
            self.travel_back(server, index, leg).await;
            ledger.refused(index);
        }
        Ok(answer)
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
