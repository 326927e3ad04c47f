//! Connects to other servers: to the addresses of a name, directly or through a proxy.

mod addresses;
mod proxies;
mod proxy;

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http::{Uri, uri::Scheme};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::{
    client::legacy::connect::{
        HttpConnector,
        proxy::{SocksV5, Tunnel},
    },
    rt::TokioIo,
};
use tokio::net::TcpStream;
use tokio_rustls::rustls::ClientConfig;
use tower::{Service, ServiceExt};

use self::addresses::Addresses;
pub(crate) use self::{
    proxies::{EnvironmentProxies, Place, Proxies, place},
    proxy::{OwnProxy, Proxy},
};
use crate::http_client::{BoxError, chain};

/// A connector for hyper, below TLS. Through a proxy it opens a tunnel, so that TLS is end to end.
#[derive(Clone, Debug)]
pub(crate) struct Dialer {
    straight: Addresses,
    /// For connections to proxies, some of which use TLS themselves.
    to_proxy: HttpsConnector<Addresses>,
    proxies: Proxies,
}

type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

impl Dialer {
    /// `tls` has the certificates to trust for proxies.
    pub(crate) fn new(tcp: HttpConnector, tls: ClientConfig, proxies: Proxies) -> Self {
        let straight = Addresses::new(tcp);
        let to_proxy = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        let to_proxy = to_proxy.enable_http1().wrap_connector(straight.clone());
        Self { straight, to_proxy, proxies }
    }
}

impl Service<Uri> for Dialer {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        match self.proxies.of(&uri) {
            None => {
                let straight = self.straight.clone();
                Box::pin(async { Ok(MaybeHttpsStream::Http(straight.oneshot(uri).await?)) })
            }
            Some(proxy) => {
                let to_proxy = self.to_proxy.clone();
                Box::pin(async move { through(&proxy, to_proxy, with_port(&uri)?).await })
            }
        }
    }
}

async fn through(
    proxy: &Proxy,
    to_proxy: HttpsConnector<Addresses>,
    target: Uri,
) -> Result<Stream, BoxError> {
    let address = proxy.address();
    if proxy.is_socks() {
        let mut socks = SocksV5::new(address, to_proxy);
        if let Some((user, password)) = proxy.user() {
            socks = socks.with_auth(user.to_owned(), password.to_owned());
        }
        return socks
            .oneshot(target)
            .await
            .map_err(|error| format!("{proxy}: {}", chain(&error)).into());
    }
    let mut tunnel = Tunnel::new(address, to_proxy);
    if let Some(authorization) = proxy.authorization() {
        tunnel = tunnel.with_auth(authorization.clone());
    }
    tunnel.oneshot(target).await.map_err(|error| format!("{proxy}: {}", chain(&error)).into())
}

/// Adds the port that the scheme implies: a tunnel would use the port of TLS otherwise.
fn with_port(uri: &Uri) -> Result<Uri, http::Error> {
    let is_plain = uri.scheme() == Some(&Scheme::HTTP);
    let port = uri.port_u16().unwrap_or(if is_plain { 80 } else { 443 });
    let host = uri.host().unwrap_or_default();
    let authority = format!("{host}:{port}");
    Uri::builder().scheme("https").authority(authority).path_and_query("/").build()
}
