//! The stack under test, its requests, and the attempts behind an answer.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tower::{ServiceBuilder, ServiceExt, util::BoxCloneSyncService};
use tower_spillover::{
    BackendPool, RegionRotateLayer, ResponseBody, Served, SmartFallbackLayer, served::Attempt,
};

use crate::{
    protocol::{Error, Protocol},
    real::soon,
};

pub type Ask = Request<Full<Bytes>>;
pub type Answer = Response<ResponseBody<Incoming>>;
pub type Stack = BoxCloneSyncService<Ask, Answer, Error>;

/// PTU first, then Standard; a request may wait for half a second.
pub fn stack(protocol: Protocol, ptu: BackendPool, standard: BackendPool) -> Stack {
    let tiers =
        SmartFallbackLayer::new(RegionRotateLayer::new(ptu), RegionRotateLayer::new(standard))
            .max_wait(Duration::from_millis(500));
    BoxCloneSyncService::new(ServiceBuilder::new().layer(tiers).service(protocol.client()))
}

/// One pool, without waiting.
pub fn rotation(protocol: Protocol, pool: BackendPool) -> Stack {
    let rotate = RegionRotateLayer::new(pool);
    BoxCloneSyncService::new(ServiceBuilder::new().layer(rotate).service(protocol.client()))
}

/// A chat completion that the caller addressed to some other resource.
pub fn chat() -> Ask {
    ask(CLASSIC, r#"{"messages": [{"role": "user", "content": "hello"}]}"#)
}

/// The same in the v1 grammar, in which the body names the deployment.
pub fn chat_v1() -> Ask {
    ask(V1, r#"{"model": "whatever", "messages": [{"role": "user", "content": "hello"}]}"#)
}

/// An event stream with this many tokens.
pub fn stream(tokens: u32) -> Ask {
    let body = format!(
        r#"{{"messages": [{{"role": "user", "content": "hello"}}], "stream": true,
            "metadata": {{"emulator_completion_tokens": {tokens}}}}}"#
    );
    ask(CLASSIC, body)
}

pub fn ask(path: &str, body: impl Into<Bytes>) -> Ask {
    Request::post(path)
        .header("content-type", "application/json")
        .body(Full::new(body.into()))
        .expect("a valid request")
}

pub const CLASSIC: &str = "/openai/deployments/whatever/chat/completions?api-version=2024-10-21";
const V1: &str = "/openai/v1/chat/completions";

pub async fn send(stack: &Stack, request: Ask) -> Answer {
    soon(stack.clone().oneshot(request)).await.expect("a response")
}

pub fn served<B>(response: &Response<B>) -> &Served {
    response.extensions().get().expect("the account of the request")
}

/// The backends that were called, and their statuses; 0 for no response.
pub fn attempts<B>(response: &Response<B>) -> Vec<(&str, u16)> {
    let status = |attempt: &Attempt| attempt.status().map_or(0, |status| status.as_u16());
    served(response).attempts().map(|attempt| (attempt.backend(), status(attempt))).collect()
}

/// The whole body, which must arrive completely.
pub async fn read(answer: Answer) -> Bytes {
    soon(answer.into_body().collect()).await.expect("a whole body").to_bytes()
}
