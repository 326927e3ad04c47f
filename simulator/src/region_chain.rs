//! The reference region chain: an independent random pick for each attempt.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::Full;
use tower_service::Service;

use super::{
    answer::without_hints,
    draws::mix,
    network::{Answer, Network, number},
    plan::{PTU, RESOURCES, SERVERS, STANDARD},
};
use spillover_emulator::{EmulatorBody, EmulatorError};

/// Sends every attempt to a random PTU or region, and strips the hints of refusals, since the
/// chain's `retry` never reads them.
#[derive(Clone, Debug)]
pub(super) struct RandomPick {
    network: Network,
    uris: [Uri; SERVERS],
}

impl RandomPick {
    pub(super) fn new(network: Network) -> Self {
        let uris = std::array::from_fn(|server| match server.checked_sub(1) {
            None => uri(RESOURCES[0], PTU),
            Some(region) => uri(RESOURCES[region], STANDARD),
        });
        Self { network, uris }
    }
}

impl Service<Request<Full<Bytes>>> for RandomPick {
    type Response = Response<EmulatorBody>;
    type Error = EmulatorError;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), EmulatorError>> {
        self.network.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Full<Bytes>>) -> Self::Future {
        let run = self.network.run();
        let index = number(&request);
        let attempt = u64::from(run.ledger.attempts(index));
        let pick = mix(run.plan.seed, &[PICK, index as u64, attempt]) % SERVERS as u64;
        *request.uri_mut() = self.uris[pick as usize].clone();
        let answer = self.network.call(request);
        Box::pin(async move { answer.await.map(without_hints) })
    }
}

/// The chat completions URI of this deployment.
pub(super) fn uri(resource: &str, deployment: &str) -> Uri {
    let text = format!(
        "https://{resource}.openai.azure.com/openai/deployments/{deployment}/chat/completions\
         ?api-version=2024-10-21"
    );
    text.parse().expect("names of the simulator are plain")
}

const PICK: u64 = 20;
