//! Measures streams that last only a few milliseconds.

use std::{net::SocketAddr, time::Duration};

use http_body_util::BodyExt;
use tower::ServiceExt;

use crate::{
    azure::STANDARD,
    protocol::{Client, Protocol},
    real::{Stopwatch, soon},
    stack::stream,
};

/// The first quartile of the time that a stream of a few tokens takes; slower ones measure the
/// machine. Skips the first streams, because a new connection acknowledges immediately.
pub async fn quickest_quarter(addr: SocketAddr, key: &str) -> Duration {
    let client: Client<_> = Protocol::Http1.client();
    let mut times = Vec::new();
    for turn in 0..40 {
        let mut request = stream(5);
        let path = format!("http://{addr}/openai/deployments/{STANDARD}/chat/completions");
        *request.uri_mut() = format!("{path}?api-version=2024-10-21").parse().unwrap();
        request.headers_mut().insert("api-key", key.parse().unwrap());
        let watch = Stopwatch::start();
        let answer = soon(client.clone().oneshot(request)).await.unwrap();
        assert_eq!(answer.status().as_u16(), 200);
        let body = soon(answer.into_body().collect()).await.unwrap().to_bytes();
        assert!(body.ends_with(b"data: [DONE]\n\n"));
        if turn >= 20 {
            times.push(watch.elapsed());
        }
    }
    times.sort();
    times[times.len() / 4]
}

/// Five tokens take a little over 5 ms, and the kernel's delayed acknowledgement 40 ms.
pub const BAR: Duration = Duration::from_millis(30);
