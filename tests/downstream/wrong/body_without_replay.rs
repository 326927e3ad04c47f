//! A body that is still arriving, without a layer that keeps it.
//~ a body of the type `UnsyncBoxBody<bytes::Bytes, Infallible>` cannot be sent a second time
//~ put `ReplayLayer::new(4 << 20)` outside of the other layers

use std::convert::Infallible;

use bytes::Bytes;
use http::Request;
use http_body_util::combinators::UnsyncBoxBody;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{ServiceBuilder, ServiceExt};
use tower_spillover::{BackendPool, RegionRotateLayer};

async fn send(pool: BackendPool, request: Request<UnsyncBoxBody<Bytes, Infallible>>) {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let azure = ServiceBuilder::new().layer(RegionRotateLayer::new(pool)).service(client);
    azure.oneshot(request).await.expect("a response");
}

fn main() {
    drop(send);
}
