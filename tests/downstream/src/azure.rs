//! An emulated resource whose PTU refuses once, for longer than anyone waits.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use spillover_emulator::{Deployment, Emulator, Fault, Ptu, Resource, Serving, Standard};
use tokio::net::TcpListener;
use tower_spillover::{Backend, BackendPool};

pub(crate) const CHAT: &str = "/openai/deployments/m/chat/completions?api-version=2024-10-21";
pub(crate) const PROMPT: &str = r#"{"messages": [{"role": "user", "content": "Hello"}]}"#;

pub(crate) struct Azure {
    pub(crate) emulator: Emulator,
    serving: Serving,
}

impl Azure {
    pub(crate) async fn full() -> Self {
        let emulator = Emulator::new([Resource::new("contoso")
            .key("key")
            .deployment(Deployment::ptu("ptu", Ptu::new(1e6)))
            .deployment(Deployment::standard("standard", Standard::unlimited()))]);
        emulator.script("contoso", "ptu", [Fault::status(429).header("retry-after-ms", "60000")]);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let serving = emulator.serve("contoso", listener);
        Self { emulator, serving }
    }

    pub(crate) fn pool(&self, deployment: &str) -> BackendPool {
        let backend = Backend::new(deployment, self.serving.endpoint()).expect("an endpoint");
        BackendPool::new([backend.deployment(deployment).api_key("key")]).expect("a pool")
    }
}

pub(crate) fn chat() -> Request<Full<Bytes>> {
    Request::post(CHAT).body(Full::from(PROMPT)).expect("a request")
}
