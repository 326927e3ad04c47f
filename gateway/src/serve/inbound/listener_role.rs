//! What a listener serves: models, the gateway's own pages, or both.

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};

use super::{
    authentication::authenticate, client_certificate::ClientCertificate, gateway::Gateway,
};
use crate::serve::{
    concurrency::Concurrency, record::observe::Page, refusal::Refusal, routing::known_operations,
};

/// What a listener serves.
#[derive(Clone, Debug)]
pub(crate) struct ListenerRole {
    pub(crate) gateway: Arc<Gateway>,
    /// Whether it accepts requests for models.
    pub(crate) has_models: bool,
    /// The client certificate of the connection's handshake.
    pub(crate) peer: Option<ClientCertificate>,
    /// The requests in flight of the client's address.
    pub(crate) of_address: Concurrency,
}

impl ListenerRole {
    pub(crate) fn public(gateway: &Arc<Gateway>) -> Self {
        Self::new(gateway, true)
    }

    pub(crate) fn admin(gateway: &Arc<Gateway>) -> Self {
        Self::new(gateway, false)
    }

    fn new(gateway: &Arc<Gateway>, has_models: bool) -> Self {
        let (gateway, of_address) = (Arc::clone(gateway), Concurrency::default());
        Self { gateway, has_models, peer: None, of_address }
    }

    /// The role for a connection from `address`.
    pub(crate) fn at(&self, address: IpAddr) -> Self {
        Self { of_address: self.gateway.peers.count(address), ..self.clone() }
    }

    /// Serves a page about the gateway itself. The health pages require no key; on an address for
    /// operators only, the other pages require none either.
    pub(crate) async fn page<B>(&self, request: &Request<B>) -> Option<Response<Bytes>> {
        let path = request.uri().path();
        let is_open = match path {
            "/healthz" | "/readyz" => true,
            "/metrics" | "/-/status" | "/-/requests" => false,
            _ => return None,
        };
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            return Some(known_operations::not_allowed("GET, HEAD").into_response());
        }
        if !is_open
            && self.has_models
            && let Err(refusal) = self.admit_operator(request.headers()).await
        {
            return Some(refusal.into_response());
        }
        let text = |status, text: &'static [u8]| {
            let mut response = Response::new(Bytes::from_static(text));
            *response.status_mut() = status;
            Some(response)
        };
        match path {
            "/healthz" => text(StatusCode::OK, b"ok\n"),
            "/readyz" if self.gateway.is_draining() => {
                text(StatusCode::SERVICE_UNAVAILABLE, b"draining\n")
            }
            "/readyz" => text(StatusCode::OK, b"ready\n"),
            _ => {
                let query = request.uri().query().unwrap_or_default();
                let page = Page { path, query, headers: request.headers() };
                self.gateway.observer().page(&page, &self.gateway.snapshot())
            }
        }
    }

    /// If no client may see the operators' pages, they do not exist.
    async fn admit_operator(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let runtime = self.gateway.runtime();
        if !runtime.clients.may_operate() {
            return Err(Refusal::not_found());
        }
        let (clients, verifier) = (&runtime.clients, runtime.verifier.as_deref());
        let caller = authenticate(clients, verifier, headers, self.peer.as_ref()).await?;
        if caller.may.operate {
            return Ok(());
        }
        let text = "This client may not see the operators' pages.";
        Err(Refusal::new(StatusCode::FORBIDDEN, "403", text))
    }
}
