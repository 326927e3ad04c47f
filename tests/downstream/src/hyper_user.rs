//! Has hyper's client, and wants the stack in a field and the errors of its client.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client, Error, connect::HttpConnector},
    rt::TokioExecutor,
};
use tower::{Layer, ServiceExt};
use tower_spillover::{
    BackendPool, PtuFirst, RegionRotateLayer, ResponseBody, Served, SmartFallbackLayer,
    policy::{ErrorKind, MoveOn},
};

type Http = Client<HttpConnector, Full<Bytes>>;
type KindOf = fn(&Error) -> ErrorKind;

/// Can be cloned, shared and named.
#[derive(Clone, Debug)]
pub struct Azure {
    stack: PtuFirst<Http, KindOf>,
}

impl Azure {
    pub fn new(ptu: BackendPool, standard: BackendPool) -> Self {
        let move_on = MoveOn::new().errors(kind as KindOf);
        let tier = |pool| RegionRotateLayer::new(pool).move_on(move_on.clone());
        let layer = SmartFallbackLayer::new(tier(ptu), tier(standard))
            .max_wait(Duration::from_secs(2))
            .move_on(move_on.clone());
        Self { stack: layer.layer(Client::builder(TokioExecutor::new()).build_http()) }
    }

    /// The error is hyper's own.
    pub async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<ResponseBody<impl http_body::Body<Data = Bytes>>>, Error> {
        self.stack.clone().oneshot(request).await
    }
}

pub fn served<B>(response: &Response<B>) -> Option<&Served> {
    response.extensions().get()
}

fn kind(error: &Error) -> ErrorKind {
    if error.is_connect() { ErrorKind::Connect } else { ErrorKind::Other }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::azure;

    fn is_shared<T: Clone + Send + Sync + 'static>(_: &T) {}

    #[tokio::test]
    async fn a_full_ptu_is_passed_over_and_the_account_says_so() {
        let full = azure::Azure::full().await;
        let azure = Azure::new(full.pool("ptu"), full.pool("standard"));
        is_shared(&azure);
        let response = azure.send(azure::chat()).await.expect("an answer");
        let served = served(&response).expect("an account");
        assert_eq!((served.backend(), served.spilled()), (Some("standard"), true));
        let Ok(body) = response.into_body().collect().await else { panic!("a whole body") };
        assert!(!body.to_bytes().is_empty());
        assert_eq!(full.emulator.stats().total().attempts, 2);
    }
}
