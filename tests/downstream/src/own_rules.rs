//! Has rules, tokens and bodies of its own: every trait that a user may implement.

use std::{
    pin::Pin,
    sync::Mutex,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use tower_spillover::{
    TryCloneBody,
    backend::{AccessToken, TokenFuture, TokenSource},
    body::UsageSink,
    classify::{Classify, Hint, Outcome, Provider, Verdict},
    gate::cost::Usage,
    policy::{FallbackFacts, FallbackPolicy, Next, WaitThenSpill},
};

/// Never waits at night.
#[derive(Clone, Copy, Debug)]
pub struct Impatient(pub Duration);

impl FallbackPolicy for Impatient {
    fn next(&self, facts: &FallbackFacts) -> Next {
        match facts.hint {
            Hint::After(wait) if wait > self.0 => Next::Spill,
            _ => WaitThenSpill.next(facts),
        }
    }
}

/// A server that says 420 when it is full.
#[derive(Clone, Copy, Debug)]
pub struct Calm;

impl Classify for Calm {
    fn classify(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        now: &dyn Fn() -> SystemTime,
    ) -> Verdict {
        match status.as_u16() {
            420 => Outcome::Throttled(Hint::After(Duration::from_secs(2))).into(),
            _ => Provider::Http.classify(status, headers, now),
        }
    }
}

#[derive(Debug)]
pub struct Fixed(pub AccessToken);

impl TokenSource for Fixed {
    fn token(&self) -> TokenFuture {
        TokenFuture::ready(self.0.clone())
    }
}

#[derive(Debug, Default)]
pub struct Spent(pub Mutex<u64>);

impl UsageSink for Spent {
    fn ended(&self, usage: Option<Usage>) {
        *self.0.lock().expect("no panic") +=
            usage.map_or(0, |usage| usage.prompt + usage.completion);
    }
}

/// A body of one's own, in memory.
#[derive(Clone, Debug)]
pub struct Prompt(Full<Bytes>);

impl Prompt {
    pub fn new(text: &'static str) -> Self {
        Self(Full::from(text))
    }
}

impl Body for Prompt {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}

impl TryCloneBody for Prompt {
    fn try_clone(&self) -> Option<Self> {
        Some(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use hyper_util::{client::legacy::Client, rt::TokioExecutor};
    use tower::{Layer, ServiceExt};
    use tower_spillover::{RegionRotateLayer, Served, SmartFallbackLayer};

    use super::*;
    use crate::azure::{Azure, CHAT, PROMPT};

    #[tokio::test]
    async fn a_policy_and_a_body_of_one_s_own_are_obeyed() {
        let azure = Azure::full().await;
        let service = SmartFallbackLayer::new(
            RegionRotateLayer::new(azure.pool("ptu")),
            RegionRotateLayer::new(azure.pool("standard")),
        )
        .max_wait(Duration::from_secs(600))
        .policy(Impatient(Duration::from_secs(1)))
        .layer(Client::builder(TokioExecutor::new()).build_http());
        let request = Request::post(CHAT).body(Prompt::new(PROMPT)).expect("a request");
        let response = service.oneshot(request).await.expect("an answer");
        let served = response.extensions().get::<Served>().expect("an account");
        assert_eq!((served.backend(), served.attempts().len()), (Some("standard"), 2));
    }
}
