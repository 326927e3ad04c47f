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
    request_body::{self, BadRequest},
    routes::{self, Operation, Route, RouteError},
    service::{self, plain},
    site::Site,
    state::{StateError, StateRequest},
};

/// The context of one request.
pub(crate) struct Handler<'a> {
    pub(crate) registry: &'a Arc<Registry>,
    pub(crate) place: &'a Place,
    pub(crate) head: &'a Parts,
    /// How long a cut waits; zero in process.
    pub(crate) pause: Duration,
}

impl<'a> Handler<'a> {
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

pub(crate) async fn serve(handler: Handler<'_>, body: &Bytes) -> Answer {
    let uri = &handler.head.uri;
    if let Some(request) = StateRequest::read(&handler.head.method, uri.path(), uri.query()) {
        return Ok(handler.kept(request, body));
    }
    let route = match routes::route(&handler.head.method, uri.path(), uri.query()) {
        Ok(route) => route,
        Err(error) => return Ok(handler.misrouted(error)),
    };
    if matches!(route.operation, Operation::Models | Operation::Deployments) {
        let listing = json::listing(handler.place, route.operation);
        return Ok(service::json(StatusCode::OK, EmulatorBody::whole(listing)));
    }
    let poison = handler.registry.poison(&handler.head.headers, body);
    // A handshake has no body.
    let body = match route.operation {
        Operation::Realtime => Ok(Value::Null),
        _ => request_body::read(&handler.head.headers, body),
    };
    let site = match handler.find(&route, &body) {
        Ok(site) => site,
        Err(refusal) => return Ok(*refusal),
    };
    let ask = body.and_then(|body| {
        let (headers, longest) = (&handler.head.headers, site.default_max_tokens);
        let mut ask = Ask::read(route.operation, headers, &body, longest)?;
        ask.foreign = handler.place.store.foreign(&body).map(str::to_owned);
        if handler.place.prompt_cache.is_some() {
            let (tokens, is_named) = (ask.prompt, ask.names_prompt);
            ask.beginnings = prompt_cache::beginnings(&site.model, &body, tokens, is_named);
        }
        Ok(ask)
    });
    let call = Call { handler: &handler, route: &route, ask: &ask, poison };
    let first = call.attempt(site).await?;
    call.spill(site, first).await
}

impl<'a> Handler<'a> {
    fn misrouted(&self, error: RouteError) -> Response<EmulatorBody> {
        self.registry.unrouted.fetch_add(1, Relaxed);
        match error {
            RouteError::NotFound => plain(StatusCode::NOT_FOUND, &errors::unknown_operation()),
            RouteError::Method(allowed) => {
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
        body: &Result<Value, BadRequest>,
    ) -> Result<&'a Arc<Site>, Box<Response<EmulatorBody>>> {
        let name = match (&route.deployment, body) {
            (Some(name), _) => Ok(name.as_str()),
            (None, Err(error)) => Err(error.clone()),
            (None, Ok(body)) => match body.get("model").and_then(Value::as_str) {
                Some(name) => Ok(name),
                None => Err(BadRequest {
                    message: "Missing required parameter: 'model'.".to_owned(),
                    param: Some("model"),
                }),
            },
        };
        let refusal = match name.map(|name| self.place.site(name)) {
            Ok(Some(site)) => return Ok(site),
            Ok(None) => plain(StatusCode::NOT_FOUND, &errors::unknown_deployment()),
            Err(error) => plain(StatusCode::BAD_REQUEST, &errors::bad_request(&error)),
        };
        self.registry.unrouted.fetch_add(1, Relaxed);
        Err(Box::new(refusal))
    }
}
