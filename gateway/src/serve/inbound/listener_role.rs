//! What a listener leads to: models, pages about the gateway, or both.

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use http::{Response, StatusCode};

use super::{client_certificate::CertificateNames, gateway::Gateway};
use crate::serve::concurrency::Concurrency;

/// What is behind a listener.
#[derive(Clone, Debug)]
pub(crate) struct ListenerRole {
    pub(crate) gateway: Arc<Gateway>,
    pages: Pages,
    /// Whether requests for models pass here.
    pub(crate) has_models: bool,
    /// Who the client of the connection is by its certificate.
    pub(crate) peer: Option<CertificateNames>,
    /// The requests under way of the address that it comes from.
    pub(crate) of_address: Concurrency,
}

/// Which pages about the gateway itself there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pages {
    /// Whether it is well.
    Health,
    /// Metrics and status besides.
    All,
}

impl ListenerRole {
    pub(crate) fn public(gateway: &Arc<Gateway>, pages: Pages) -> Self {
        Self::new(gateway, pages, true)
    }

    pub(crate) fn admin(gateway: &Arc<Gateway>) -> Self {
        Self::new(gateway, Pages::All, false)
    }

    fn new(gateway: &Arc<Gateway>, pages: Pages, has_models: bool) -> Self {
        let (gateway, of_address) = (Arc::clone(gateway), Concurrency::default());
        Self { gateway, pages, has_models, peer: None, of_address }
    }

    /// Of a connection from `address`.
    pub(crate) fn at(&self, address: IpAddr) -> Self {
        Self { of_address: self.gateway.peers.count(address), ..self.clone() }
    }

    /// A page about the gateway itself, which is there without a key.
    pub(crate) fn page(&self, path: &str) -> Option<Response<Bytes>> {
        if path.starts_with("/openai/") {
            return None;
        }
        let text = |status, text: &'static [u8]| {
            let mut response = Response::new(Bytes::from_static(text));
            *response.status_mut() = status;
            response
        };
        match path {
            "/healthz" => Some(text(StatusCode::OK, b"ok\n")),
            "/readyz" if self.gateway.is_draining() => {
                Some(text(StatusCode::SERVICE_UNAVAILABLE, b"draining\n"))
            }
            "/readyz" => Some(text(StatusCode::OK, b"ready\n")),
            _ if self.pages == Pages::All => {
                self.gateway.observer().page(path, &self.gateway.snapshot())
            }
            _ => None,
        }
    }
}
