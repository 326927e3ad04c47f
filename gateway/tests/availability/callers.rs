//! Callers that send at a constant rate, independent of earlier answers.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use spillover_testing::real::Stopwatch;
use tokio::task::JoinSet;

pub(crate) struct Caller {
    pub(crate) per_second: u32,
    pub(crate) path: &'static str,
    pub(crate) body: &'static str,
}

/// One request and its result. Times count from the beginning of the run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) at: Duration,
    pub(crate) done: Duration,
    pub(crate) answer: Answer,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Answer {
    /// 200, with the complete body.
    Served,
    /// 429.
    Refused,
    /// Any other status, an error, or no answer within a minute.
    Lost,
}

impl Caller {
    /// Sends requests for `lasts`, and waits for the last answer.
    pub(crate) async fn call(self, address: &str, lasts: Duration, clock: Stopwatch) -> Vec<Sent> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        let uri = format!("http://{address}{}", self.path);
        let count = (lasts.as_secs_f64() * f64::from(self.per_second)) as u32;
        let mut calls = JoinSet::new();
        if count > 0 {
            let mut ticks = tokio::time::interval(Duration::from_secs(1) / self.per_second);
            for _ in 0..count {
                ticks.tick().await;
                let at = clock.elapsed();
                let request = Request::post(&uri)
                    .header(CONTENT_TYPE, "application/json")
                    .body(Full::from(self.body))
                    .expect("a valid request");
                let client = client.clone();
                calls.spawn(async move {
                    let answer = ask(&client, request).await;
                    Sent { at, done: clock.elapsed(), answer }
                });
            }
        }
        calls.join_all().await
    }
}

#[expect(clippy::disallowed_methods, reason = "sockets live in real time")]
async fn ask(client: &Client<HttpConnector, Full<Bytes>>, request: Request<Full<Bytes>>) -> Answer {
    let answer = async {
        let response = client.request(request).await.ok()?;
        let status = response.status();
        response.into_body().collect().await.ok()?;
        Some(status)
    };
    match tokio::time::timeout(Duration::from_secs(60), answer).await {
        Ok(Some(StatusCode::OK)) => Answer::Served,
        Ok(Some(StatusCode::TOO_MANY_REQUESTS)) => Answer::Refused,
        _ => Answer::Lost,
    }
}
