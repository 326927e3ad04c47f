//! The load tester's connections: HTTP/1.1 or HTTP/2, with and without TLS, by rustls and ring.

use std::{collections::BTreeMap, path::Path};

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client as Legacy, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tokio_rustls::rustls::ClientConfig;

use super::args::LoadArgs;
use crate::{
    dial::{Dialer, EnvironmentProxies, Proxies},
    files, tls_roots,
};

pub(super) type Client = Legacy<HttpsConnector<Dialer>, Full<Bytes>>;

/// A client that follows no redirects and never sends a request twice.
pub(super) fn client(args: &LoadArgs) -> Result<Client, String> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    let tls = tls(args.trust.as_deref())?;
    let proxies = Proxies::new(BTreeMap::new(), EnvironmentProxies::of_process());
    let dialer = Dialer::new(http, tls.clone(), proxies);
    let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    let connector = if args.http2 {
        https.enable_http2().wrap_connector(dialer)
    } else {
        https.enable_http1().wrap_connector(dialer)
    };
    let client = Legacy::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .http2_only(args.http2)
        // Otherwise a request on a connection that was just closed would be sent again.
        .retry_canceled_requests(false)
        .build(connector);
    Ok(client)
}

/// Trusts the public authorities, and those in a file.
fn tls(trust: Option<&Path>) -> Result<ClientConfig, String> {
    let Some(file) = trust else { return tls_roots::tls(None) };
    let wrong = |problem: String| format!("{}: {problem}: check --trust", file.display());
    let pem = files::read(file, files::MAX_FILE_BYTES, files::PATIENCE)
        .map_err(|error| wrong(error.to_string()))?;
    tls_roots::tls(Some(&pem)).map_err(wrong)
}
