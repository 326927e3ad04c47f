//! One authorised request at its resource: route, fault, quota, answer.

use std::{borrow::Cow, sync::Arc, sync::atomic::Ordering::Relaxed, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header, request::Parts};
use serde_json::Value;

use crate::{
    EmulatorBody, EmulatorError, Fault,
    answer::{
        Speech,
        errors::{self, Refused},
        head, json, sse,
    },
    ask::{self, Ask, Bill, Complaint},
    body::Cut,
    fault::FaultKind,
    flight::Flight,
    prompt_cache,
    registry::{Place, Registry},
    routes::{self, Astray, Grammar, Operation, Route},
    service::{self, plain},
    site::{Gauge, Site, Verdict},
    standard::Axis,
};

/// What stays the same while one request is served.
pub(crate) struct Visit<'a> {
    registry: &'a Arc<Registry>,
    place: &'a Place,
    head: &'a Parts,
    /// How long a cut waits; zero in process.
    pause: Duration,
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

type Answer = Result<Response<EmulatorBody>, EmulatorError>;

pub(crate) async fn serve(visit: Visit<'_>, body: &Bytes) -> Answer {
    let uri = &visit.head.uri;
    let route = match routes::route(&visit.head.method, uri.path(), uri.query()) {
        Ok(route) => route,
        Err(astray) => return Ok(visit.astray(astray)),
    };
    if matches!(route.operation, Operation::Models | Operation::Deployments) {
        let listing = json::listing(visit.place, route.operation);
        return Ok(service::json(StatusCode::OK, EmulatorBody::whole(listing)));
    }
    let poison = visit.registry.poison(&visit.head.headers, body);
    let body = ask::parse(body);
    let site = match visit.find(&route, &body) {
        Ok(site) => site,
        Err(refusal) => return Ok(*refusal),
    };
    let ask = body.and_then(|body| {
        let mut ask = Ask::read(route.operation, &visit.head.headers, &body)?;
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

    /// The deployment that the path or, on v1 paths, the body's `model` names.
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

/// One operation, which may be tried on a second deployment.
struct Call<'a> {
    visit: &'a Visit<'a>,
    route: &'a Route,
    ask: &'a Result<Ask, Complaint>,
    /// What this request meets wherever it goes.
    poison: Option<Fault>,
}

impl Call<'_> {
    async fn attempt(&self, site: &Arc<Site>) -> Answer {
        let fault = match &self.poison {
            Some(poison) => {
                site.arrive_spoiled();
                poison.clone()
            }
            None => site.arrive().unwrap_or_else(Fault::pass),
        };
        let mut response = match fault.kind {
            FaultKind::Reset => {
                self.pass(fault.delay).await;
                site.count_unserved(self.visit.registry.clock);
                site.count(|counts| counts.failed += 1);
                return Err(EmulatorError::Reset);
            }
            FaultKind::Status(status) => {
                self.pass(fault.delay).await;
                self.scripted(site, status, fault.body.as_ref())
            }
            FaultKind::Hidden(wait) => {
                self.pass(fault.delay).await;
                let gauge = site.count_unserved(self.visit.registry.clock);
                self.hidden(site, wait, Some(Axis::Tokens), &gauge)
            }
            FaultKind::Pass => self.ordinary(site, fault.delay, None).await,
            FaultKind::Cut(events) => self.ordinary(site, fault.delay, Some(events)).await,
        };
        let headers = response.headers_mut();
        if let Some(name) = &site.name_header {
            headers.insert(DEPLOYMENT_NAME, name.clone());
        }
        for name in fault.headers.keys() {
            headers.remove(name);
        }
        for (name, value) in &fault.headers {
            headers.append(name, value.clone());
        }
        Ok(response)
    }

    /// Azure's own spillover, inside the resource: a failed answer of a PTU is replaced by the other
    /// deployment's if that one succeeds, and marked if it does not.
    async fn spill(&self, site: &Site, mut first: Response<EmulatorBody>) -> Answer {
        let asked = self.visit.head.headers.get("x-ms-spillover-deployment");
        let asked = asked.and_then(|name| name.to_str().ok());
        let other = site.spillover.as_deref().or(asked);
        // Responses cannot be spilled (Azure page "Manage traffic with spillover", limitations).
        if first.status() == StatusCode::OK || self.route.operation == Operation::Responses {
            return Ok(first);
        }
        let Some(other) = other.and_then(|other| self.visit.place.site(other)) else {
            return Ok(first);
        };
        if !site.is_ptu() || other.name == site.name {
            return Ok(first);
        }
        let mut second = self.attempt(other).await?;
        if second.status() == StatusCode::OK {
            if let Some(name) = &site.name_header {
                let headers = second.headers_mut();
                headers.insert("x-ms-spillover-from-deployment", name.clone());
            }
            return Ok(second);
        }
        let status = HeaderValue::from(second.status().as_u16());
        first.headers_mut().insert("x-ms-spillover-error", status);
        Ok(first)
    }

    async fn ordinary(
        &self,
        site: &Arc<Site>,
        delay: Duration,
        cut: Option<usize>,
    ) -> Response<EmulatorBody> {
        let clock = self.visit.registry.clock;
        let begun = clock.now().saturating_add(delay);
        let ask = match self.ask {
            Ok(ask) => ask,
            Err(complaint) => return self.faulty(site, &errors::complaint(complaint)),
        };
        if let Some(complaint) = self.foreign_state(ask) {
            return self.faulty(site, &complaint);
        }
        let (verdict, gauge) = site.admit(clock, &self.with_cached(ask, clock.now()));
        match verdict {
            Verdict::Refused(wait, axis) => {
                self.pass(delay).await;
                let hides = site.hides_throttles && self.route.grammar == Grammar::V1;
                if hides && ask.stream && self.route.operation == Operation::Responses {
                    return self.hidden(site, wait, axis, &gauge);
                }
                self.refused(site, wait, axis, &gauge)
            }
            Verdict::Admitted(bill) => {
                if let Some(cache) = &self.visit.place.prompt_cache {
                    cache.fill(&ask.beginnings, clock.now());
                }
                let flight = Flight::new(Arc::clone(site), clock, bill, begun, site.pace);
                self.served(site, flight, ask, bill, &gauge, cut).await
            }
        }
    }

    /// What is asked for, with what the resource has in its cache of it.
    fn with_cached<'s>(&self, ask: &'s Ask, now: Duration) -> Cow<'s, Ask> {
        match &self.visit.place.prompt_cache {
            Some(cache) if !ask.names_cached => {
                let cached = cache.tokens(&ask.beginnings, now).min(ask.prompt);
                Cow::Owned(Ask { cached, ..ask.clone() })
            }
            _ => Cow::Borrowed(ask),
        }
    }

    async fn served(
        &self,
        site: &Site,
        flight: Flight,
        ask: &Ask,
        bill: Bill,
        gauge: &Gauge,
        cut: Option<usize>,
    ) -> Response<EmulatorBody> {
        let clock = flight.clock();
        let speech = self.speech(site, ask, bill);
        let broken = cut.map(|events| (events, Cut::new(clock, self.visit.pause)));
        let mut response = if ask.stream && self.route.operation != Operation::Embeddings {
            event_stream(EmulatorBody::events(sse::EventStream::new(speech, flight, broken)))
        } else {
            let due = flight.due(bill.completion);
            if due > clock.now() {
                clock.sleep_until(due).await;
            }
            let whole = json::whole(&speech);
            let body = if let Some((_, cut)) = broken {
                flight.abandon(bill.completion / 2);
                EmulatorBody::half(whole, cut)
            } else {
                flight.finish();
                EmulatorBody::whole(whole)
            };
            service::json(StatusCode::OK, body)
        };
        site.count(|counts| counts.ok += 1);
        head::show(gauge, response.headers_mut());
        response
    }

    /// A request that no deployment could serve.
    fn faulty(&self, site: &Site, body: &Value) -> Response<EmulatorBody> {
        let gauge = site.count_unserved(self.visit.registry.clock);
        site.count(|counts| counts.failed += 1);
        let mut response = plain(StatusCode::BAD_REQUEST, body);
        head::show(&gauge, response.headers_mut());
        response
    }

    fn refused(
        &self,
        site: &Site,
        wait: Duration,
        axis: Option<Axis>,
        gauge: &Gauge,
    ) -> Response<EmulatorBody> {
        site.count(|counts| counts.throttled += 1);
        let body = self.who(site).body(axis, Some(wait));
        let mut response = plain(StatusCode::TOO_MANY_REQUESTS, &body);
        head::show(gauge, response.headers_mut());
        head::show_wait(wait, axis, response.headers_mut());
        response
    }

    fn hidden(
        &self,
        site: &Site,
        wait: Duration,
        axis: Option<Axis>,
        gauge: &Gauge,
    ) -> Response<EmulatorBody> {
        site.count(|counts| counts.throttled += 1);
        let message = self.who(site).message(axis, None);
        let mut speech = self.speech(site, &Ask::default(), Bill::default());
        speech.operation = Operation::Responses;
        let events = sse::hidden_refusal(&speech, &message);
        let mut response = event_stream(EmulatorBody::whole(events));
        let headers = response.headers_mut();
        head::show(gauge, headers);
        // Seconds only: that is all that has been seen on such answers.
        let seconds = HeaderValue::from(errors::whole_seconds(wait));
        headers.insert(header::RETRY_AFTER, seconds);
        response
    }

    fn scripted(
        &self,
        site: &Site,
        status: StatusCode,
        body: Option<&Bytes>,
    ) -> Response<EmulatorBody> {
        let gauge = site.count_unserved(self.visit.registry.clock);
        site.count(|counts| match status {
            StatusCode::TOO_MANY_REQUESTS => counts.throttled += 1,
            status if status.is_success() => counts.ok += 1,
            _ => counts.failed += 1,
        });
        let mut response = match body {
            Some(body) => service::json(status, EmulatorBody::whole(body.clone())),
            None if status == StatusCode::TOO_MANY_REQUESTS => {
                let axis = (!site.is_ptu()).then_some(Axis::Tokens);
                plain(status, &self.who(site).body(axis, None))
            }
            None => plain(status, &errors::scripted(status)),
        };
        head::show(&gauge, response.headers_mut());
        response
    }

    fn who<'s>(&'s self, site: &'s Site) -> Refused<'s> {
        Refused {
            grammar: self.route.grammar,
            operation: self.route.operation,
            api_version: routes::api_version(self.visit.head.uri.query()),
            model: &site.model,
            deployment: &site.name,
            region: &self.visit.place.region,
        }
    }

    fn speech(&self, site: &Site, ask: &Ask, bill: Bill) -> Speech {
        let (random, serial) = self.visit.registry.identity();
        Speech {
            operation: self.route.operation,
            id: format!("{:08x}{random:016x}{serial:08x}", self.visit.place.tag),
            model: Arc::clone(&site.model_json),
            created: self.visit.registry.clock.unix_seconds(),
            bill,
            truncated: ask.truncated,
            include_usage: ask.include_usage,
            include_encrypted: ask.include_encrypted,
            dimensions: ask.dimensions,
            inputs: ask.inputs,
        }
    }

    /// What the request refers to that another resource made, and nobody else can continue.
    fn foreign_state(&self, ask: &Ask) -> Option<Value> {
        let own = format!("{:08x}", self.visit.place.tag);
        let made_here = |id: &str, prefix: &str| {
            let rest = id.strip_prefix(prefix);
            rest.is_some_and(|rest| rest.starts_with(&own))
        };
        if let Some(id) = ask.previous.as_deref()
            && !made_here(id, "resp_")
        {
            return Some(errors::unknown_response(id));
        }
        let foreign = ask.encrypted.iter().any(|content| !made_here(content, "enc_"));
        foreign.then(errors::unreadable_reasoning)
    }

    async fn pass(&self, delay: Duration) {
        if !delay.is_zero() {
            let clock = self.visit.registry.clock;
            clock.sleep_until(clock.now().saturating_add(delay)).await;
        }
    }
}

fn event_stream(body: EmulatorBody) -> Response<EmulatorBody> {
    let mut response = service::json(StatusCode::OK, body);
    let kind = HeaderValue::from_static("text/event-stream; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

const DEPLOYMENT_NAME: &str = "x-ms-deployment-name";
