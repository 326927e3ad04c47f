//! What holds for every version of reqwest.

mod bodies;
mod errors;
mod redirects;
mod requests;
mod timeouts;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::{ServiceBuilder, ServiceExt, util::BoxCloneSyncService};
use tower_spillover::{
    BackendPool, PtuFirst, RegionRotateLayer, ResponseBody, Served, SmartFallbackLayer,
    policy::MoveOn, served::Attempt,
};

use super::{
    adapter::{HttpClient, KindOf, RequestBody, RequestService, error_kind, move_on},
    reqwest,
};
use crate::clock::soon;

const EAST: &str = "east/gpt-4o";
const SWEDEN: &str = "sweden/gpt-4o";
const PTU: &str = "east/gpt-4o-ptu";
const CLASSIC: &str = "/openai/deployments/whatever/chat/completions?api-version=2024-10-21";
const CHAT: &str = r#"{"messages": [{"role": "user", "content": "hello"}]}"#;

type Answer = Response<ResponseBody<reqwest::Body>>;
type Stack<B = Full<Bytes>> = BoxCloneSyncService<Request<B>, Answer, reqwest::Error>;

fn client(builder: reqwest::ClientBuilder) -> HttpClient {
    HttpClient::new(builder.no_proxy()).expect("a client")
}

fn plain() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
}

/// One pool that is asked in its order.
fn rotation(builder: reqwest::ClientBuilder, pool: BackendPool, move_on: MoveOn) -> Stack {
    let rotate = RegionRotateLayer::new(pool).move_on(move_on.errors(error_kind));
    Stack::new(ServiceBuilder::new().layer(rotate).service(client(builder)))
}

/// A PTU and Standard behind it, for reqwest's own requests.
macro_rules! azure {
    ($builder:expr, $ptu:expr, $standard:expr) => {{
        let tiers = SmartFallbackLayer::new(
            RegionRotateLayer::new($ptu).move_on(move_on()),
            RegionRotateLayer::new($standard).move_on(move_on()),
        );
        let tiers = tiers.move_on(move_on());
        let tiers = tiers.max_wait(std::time::Duration::from_millis(500));
        let azure: RequestService<PtuFirst<HttpClient, KindOf>> =
            RequestService::new(ServiceBuilder::new().layer(tiers).service(client($builder)));
        azure
    }};
}
use azure;

fn chat() -> Request<Full<Bytes>> {
    ask(Full::from(CHAT))
}

fn ask<B>(body: B) -> Request<B> {
    let request = Request::post(CLASSIC).header("content-type", "application/json");
    request.body(body).expect("a valid request")
}

/// The same as a request of reqwest.
fn post(body: impl Into<reqwest::Body>) -> reqwest::Request {
    let request = reqwest::Client::new().post(format!("http://azure{CLASSIC}"));
    let request = request.header("content-type", "application/json").body(body);
    request.build().expect("a valid request")
}

async fn send<B: Send + 'static>(stack: &Stack<B>, request: Request<B>) -> Answer {
    soon(stack.clone().oneshot(request)).await.expect("a response")
}

fn attempts(served: &Served) -> Vec<(&str, u16)> {
    let status = |attempt: &Attempt| attempt.status().map_or(0, |status| status.as_u16());
    served.attempts().map(|attempt| (attempt.backend(), status(attempt))).collect()
}

fn served(extensions: &http::Extensions) -> &Served {
    extensions.get().expect("the account of the request")
}
