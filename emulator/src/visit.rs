//! One authenticated request at its resource: finds its operation and its deployment.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header, request::Parts};
use serde_json::Value;

use crate::{
    EmulatorBody, EmulatorError, Refusal,
    answer::{errors, head, json},
    ask::Ask,
    call::Call,
    prompt_cache,
    registry::{Place, Registry},
    request_body::{self, Complaint},
    routes::{self, Astray, Operation, Route},
    service::{self, plain},
    site::Site,
    state::{StateError, StateRequest},
};

/// The context of one request.
pub(crate) struct Visit<'a> {
    pub(crate) registry: &'a Arc<Registry>,
    pub(crate) place: &'a Place,
    pub(crate) head: &'a Parts,
    /// How long a cut waits; zero in process.
    pub(crate) pause: Duration,
}

impl<'a> Visit<'a> {
    pub(crate) fn new(
        registry: &'a Arc<Registry>,
        place: &'a Place,
        head: &'a Parts,
        pause: Duration,
    ) -> Self {
        Self { registry, place, head, pause }
    }
}

pub(crate) type Answer = Result<Response<EmulatorBody>, EmulatorError>;

pub(crate) async fn serve(visit: Visit<'_>, body: &Bytes) -> Answer {
    let uri = &visit.head.uri;
    if let Some(request) = StateRequest::read(&visit.head.method, uri.path(), uri.query()) {
        return Ok(visit.kept(request, body));
    }
    let route = match routes::route(&visit.head.method, uri.path(), uri.query()) {
        Ok(route) => route,
        Err(astray) => return Ok(visit.astray(astray)),
    };
    if matches!(route.operation, Operation::Models | Operation::Deployments) {
        let listing = json::listing(visit.place, route.operation);
        return Ok(service::json(StatusCode::OK, EmulatorBody::whole(listing)));
    }
    let poison = visit.registry.poison(&visit.head.headers, body);
    // A handshake has no body.
    let body = match route.operation {
        Operation::Realtime => Ok(Value::Null),
        _ => request_body::read(&visit.head.headers, body),
    };
    let site = match visit.find(&route, &body) {
        Ok(site) => site,
        Err(refusal) => return Ok(*refusal),
    };
    let ask = body.and_then(|body| {
        let (headers, longest) = (&visit.head.headers, site.default_max_tokens);
        let mut ask = Ask::read(route.operation, headers, &body, longest)?;
        ask.foreign = visit.place.store.foreign(&body).map(str::to_owned);
        if visit.place.prompt_cache.is_some() {
            let (tokens, is_named) = (ask.prompt, ask.names_prompt);
            ask.beginnings = prompt_cache::beginnings(&site.model, &body, tokens, is_named);
        }
        Ok(ask)
    });
    let call = Call { visit: &visit, route: &route, ask: &ask, poison };
    let first = call.attempt(site).await?;
    call.spill(site, first).await
}

impl<'a> Visit<'a> {
    fn astray(&self, astray: Astray) -> Response<EmulatorBody> {
        self.registry.unrouted.fetch_add(1, Relaxed);
        match astray {
            Astray::NotFound => plain(StatusCode::NOT_FOUND, &errors::unknown_operation()),
            Astray::Method(allowed) => {
                let body = errors::wrong_method(allowed);
                let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, &body);
                let allowed = HeaderValue::from_static(allowed);
                response.headers_mut().insert(header::ALLOW, allowed);
                response
            }
        }
    }

    /// Answers a request for stored objects.
    fn kept(&self, request: StateRequest<'_>, body: &Bytes) -> Response<EmulatorBody> {
        let store = &self.place.store;
        // Uploads are not JSON, and contain no references.
        let body = request_body::parse(body).unwrap_or_default();
        let clock = self.registry.clock;
        let answer = match store.foreign(&body) {
            Some(id) => Err(StateError::Unknown(id.to_owned())),
            None => {
                let identity = self.registry.identity();
                store.answer(request, clock.now(), clock.unix_seconds(), identity)
            }
        };
        match answer {
            Ok(answer) => plain(StatusCode::OK, &answer),
            Err(StateError::Unknown(id)) => {
                plain(StatusCode::NOT_FOUND, &errors::unknown_object(&id))
            }
            Err(StateError::Refused(wait)) => {
                let body = errors::too_many_calls(wait);
                let mut response = plain(StatusCode::TOO_MANY_REQUESTS, &body);
                head::show_axis(Refusal::Calls, response.headers_mut());
                head::show_wait(wait, response.headers_mut());
                response
            }
        }
    }

    /// The deployment named by the path or, on v1 paths, by the body's `model`.
    fn find(
        &self,
        route: &Route,
        body: &Result<Value, Complaint>,
    ) -> Result<&'a Arc<Site>, Box<Response<EmulatorBody>>> {
        let name = match (&route.deployment, body) {
            (Some(name), _) => Ok(name.as_str()),
            (None, Err(complaint)) => Err(complaint.clone()),
            (None, Ok(body)) => match body.get("model").and_then(Value::as_str) {
                Some(name) => Ok(name),
                None => Err(Complaint {
                    message: "Missing required parameter: 'model'.".to_owned(),
                    param: Some("model"),
                }),
            },
        };
        let refusal = match name.map(|name| self.place.site(name)) {
            Ok(Some(site)) => return Ok(site),
            Ok(None) => plain(StatusCode::NOT_FOUND, &errors::unknown_deployment()),
            Err(complaint) => plain(StatusCode::BAD_REQUEST, &errors::complaint(&complaint)),
        };
        self.registry.unrouted.fetch_add(1, Relaxed);
        Err(Box::new(refusal))
    }
}
