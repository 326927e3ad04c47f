//! Has an axum server, and wants a proxy for some paths and a handler that asks Azure for others.

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{Request, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use bytes::Bytes;
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tower::{Layer, ServiceExt};
use tower_spillover::{PtuFirst, RegionRotateLayer, SmartFallbackLayer, replay::ReplayBody};
use tower_spillover_adapters::axum::{Proxy, ServedBy, proxy};

type Http<B> = Client<HttpConnector, B>;

/// The stack in the state of a handler, and the proxy as a service by its name.
#[derive(Clone)]
pub struct App {
    azure: PtuFirst<Http<Full<Bytes>>>,
    proxy: Proxy<PtuFirst<Http<ReplayBody<Body>>>>,
}

impl App {
    pub fn new(tiers: &SmartFallbackLayer<RegionRotateLayer, RegionRotateLayer>) -> Self {
        let http = Client::builder(TokioExecutor::new());
        let azure = tiers.layer(http.build_http());
        Self { azure, proxy: proxy(tiers.layer(http.build_http())) }
    }

    pub fn router(self) -> Router {
        let proxy = self.proxy.clone();
        Router::new().route("/ask", post(ask)).with_state(self).fallback_service(proxy)
    }
}

async fn ask(State(app): State<App>, prompt: String) -> Result<impl IntoResponse, StatusCode> {
    let request = Request::post("/openai/deployments/m/chat/completions?api-version=2024-10-21");
    let request = request.body(Full::from(prompt)).map_err(|_| StatusCode::BAD_REQUEST)?;
    let answer = app.azure.oneshot(request).await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    Ok::<_, StatusCode>((ServedBy::of(&answer), Response::new(Body::new(answer.into_body()))))
}

#[cfg(test)]
mod tests {
    use tower_spillover::Served;

    use super::*;
    use crate::azure::{self, Azure};

    #[tokio::test]
    async fn a_proxied_request_and_a_handler_s_are_served_by_standard() {
        let full = Azure::full().await;
        let tiers = SmartFallbackLayer::new(
            RegionRotateLayer::new(full.pool("ptu")),
            RegionRotateLayer::new(full.pool("standard")),
        );
        let router = App::new(&tiers).router();
        for path in ["/ask", azure::CHAT] {
            let request = Request::post(path).body(Body::from(azure::PROMPT)).expect("a request");
            let response = router.clone().oneshot(request).await.expect("an answer");
            assert_eq!(response.status(), StatusCode::OK, "{path}");
            let served = response.extensions().get::<Served>().expect("an account");
            assert_eq!(served.backend(), Some("standard"), "{path}");
        }
        assert_eq!(full.emulator.stats().of("contoso", "ptu").attempts, 1, "one memory for both");
    }
}
