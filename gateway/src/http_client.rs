//! The HTTP client for the gateway's own requests: for access tokens and for telemetry.

use std::{collections::BTreeMap, error::Error, io, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client as HyperClient, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};

use crate::{
    dial::{Dialer, EnvironmentProxies, Proxies},
    tls_roots,
};

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// An HTTP/1.1 client with TLS by rustls and ring. It follows no redirects and keeps few
/// connections, since its requests are seconds apart. It uses the proxies of the environment.
#[derive(Clone, Debug)]
pub(crate) struct Client(HyperClient<HttpsConnector<Dialer>, Full<Bytes>>);

impl Client {
    /// # Errors
    ///
    /// If the TLS provider lacks what TLS 1.2 and 1.3 need.
    pub(crate) fn new() -> Result<Self, BoxError> {
        Self::trusting(None)
    }

    /// A client that also trusts the authorities in a PEM text.
    ///
    /// # Errors
    ///
    /// As in [`new`](Self::new), and if the text contains no certificate.
    pub(crate) fn trusting(authorities: Option<&[u8]>) -> Result<Self, BoxError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let tls = tls_roots::tls(authorities)?;
        let proxies = Proxies::new(BTreeMap::new(), EnvironmentProxies::of_process());
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls.clone())
            .https_or_http()
            .enable_http1()
            .wrap_connector(Dialer::new(tcp, tls, proxies));
        let client = HyperClient::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(2)
            .build(connector);
        Ok(Self(client))
    }

    /// Sends a request and reads the whole answer, of at most 4 MiB.
    ///
    /// # Errors
    ///
    /// A text without anything of the request but its host.
    pub(crate) async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, BoxError> {
        let host = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        let exchange = async {
            let (head, body) = self.0.request(request.map(Full::new)).await?.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await?.to_bytes();
            Ok(Response::from_parts(head, body))
        };
        #[expect(clippy::disallowed_methods, reason = "nothing outside bounds these requests")]
        let result: Result<_, BoxError> = match tokio::time::timeout(TIMEOUT, exchange).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {} s", TIMEOUT.as_secs()).into()),
        };
        result.map_err(|error| io::Error::other(format!("{host}: {}", chain(&*error))).into())
    }
}

/// An error with those of its causes that it does not repeat by itself.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let reason = cause.to_string();
        if !text.contains(&reason) {
            text.push_str(": ");
            text.push_str(&reason);
        }
        source = cause.source();
    }
    text
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(10);
/// Less than common servers and load balancers keep an idle connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);
const MAX_ANSWER_BYTES: usize = 4 << 20;
