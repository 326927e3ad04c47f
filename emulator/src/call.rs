//! One operation on a deployment: its fault, its quota, its answer.

use std::{borrow::Cow, sync::Arc, time::Duration};

use http::{HeaderValue, Response, StatusCode, header};
use serde_json::Value;

use crate::{
    EmulatorBody, EmulatorError, Fault,
    answer::{Success, errors, head, json, sse},
    ask::{Ask, TokenCost},
    body::Cut,
    fault::FaultKind,
    handler::{Answer, Handler},
    in_flight::InFlight,
    realtime,
    request_body::BadRequest,
    routes::{Grammar, Operation, Route},
    service,
    site::{Gauge, Site, Verdict},
};

mod refused;

/// One operation, which may be tried on a second deployment too.
pub(crate) struct Call<'a> {
    pub(crate) handler: &'a Handler<'a>,
    pub(crate) route: &'a Route,
    pub(crate) ask: &'a Result<Ask, BadRequest>,
    /// A fault that this request meets on every deployment.
    pub(crate) poison: Option<Fault>,
}

impl Call<'_> {
    pub(crate) async fn attempt(&self, site: &Arc<Site>) -> Answer {
        let fault = match &self.poison {
            Some(poison) => {
                site.arrive_spoiled();
                poison.clone()
            }
            None => site.arrive().unwrap_or_else(Fault::pass),
        };
        self.pass(fault.silence).await;
        let mut response = match fault.kind {
            FaultKind::Reset => {
                self.pass(fault.delay).await;
                site.count_unserved(self.handler.registry.clock);
                site.count(|counts| counts.failed += 1);
                return Err(EmulatorError::Reset);
            }
            FaultKind::Status(status) => {
                self.pass(fault.delay).await;
                self.scripted(site, status, fault.body.as_ref())
            }
            FaultKind::Refusal { refusal, wait, in_stream } => {
                self.pass(fault.delay).await;
                let gauge = site.count_unserved(self.handler.registry.clock);
                if in_stream && let Some(response) = self.hidden(site, refusal, wait, &gauge) {
                    response
                } else {
                    self.refused(site, refusal, wait, &gauge)
                }
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

    /// Azure's native spillover, inside the resource: if a PTU's answer fails, the other
    /// deployment's answer replaces it if that succeeds; otherwise the failed answer is marked.
    pub(crate) async fn spill(&self, site: &Site, mut first: Response<EmulatorBody>) -> Answer {
        let asked = self.handler.head.headers.get("x-ms-spillover-deployment");
        let asked = asked.and_then(|name| name.to_str().ok());
        let other = site.spillover.as_deref().or(asked);
        // Responses cannot be spilled (Azure page "Manage traffic with spillover", limitations).
        if first.status() == StatusCode::OK || self.route.operation == Operation::Responses {
            return Ok(first);
        }
        let Some(other) = other.and_then(|other| self.handler.place.site(other)) else {
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
        let clock = self.handler.registry.clock;
        let begun = clock.now().saturating_add(delay);
        let ask = match self.ask {
            Ok(ask) => ask,
            Err(error) => {
                return self.faulty(site, StatusCode::BAD_REQUEST, &errors::bad_request(error));
            }
        };
        if let Some((status, error)) = self.foreign_state(ask) {
            return self.faulty(site, status, &error);
        }
        let (verdict, gauge) = site.admit(clock, &self.with_cached(ask, clock.now()));
        match verdict {
            Verdict::Refused(wait, refusal) => {
                self.pass(delay).await;
                let hides = site.hides_throttles && self.route.grammar == Grammar::V1;
                let hides = hides && ask.stream && self.route.operation == Operation::Responses;
                if hides && let Some(hidden) = self.hidden(site, refusal, Some(wait), &gauge) {
                    return hidden;
                }
                self.refused(site, refusal, Some(wait), &gauge)
            }
            Verdict::NoTier(tier) => {
                self.faulty(site, StatusCode::BAD_REQUEST, &errors::missing_tier(tier))
            }
            Verdict::Admitted(cost, tier) => {
                if let Some(cache) = &self.handler.place.prompt_cache {
                    cache.fill(&ask.beginnings, clock.now());
                }
                let in_flight = InFlight::new(Arc::clone(site), clock, cost, begun, site.pace);
                let mut success = self.success(site, ask, cost);
                success.tier = ask.tier.map(|_| tier.name());
                self.served(site, in_flight, ask.stream, success, &gauge, cut).await
            }
        }
    }

    /// The request, with the cached part of its prompt filled in from the resource's cache.
    fn with_cached<'s>(&self, ask: &'s Ask, now: Duration) -> Cow<'s, Ask> {
        match &self.handler.place.prompt_cache {
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
        in_flight: InFlight,
        streams: bool,
        success: Success,
        gauge: &Gauge,
        cut: Option<usize>,
    ) -> Response<EmulatorBody> {
        if self.route.operation == Operation::Realtime {
            in_flight.finish();
            site.count(|counts| counts.ok += 1);
            return realtime::open(self.handler.head, &site.model);
        }
        let clock = in_flight.clock();
        let completion = success.cost.completion;
        let broken = cut.map(|events| (events, Cut::new(clock, self.handler.pause)));
        let mut response = if streams && self.route.operation != Operation::Embeddings {
            event_stream(EmulatorBody::events(sse::EventStream::new(
                success,
                in_flight,
                site.keepalive,
                broken,
            )))
        } else {
            let due = in_flight.due(completion);
            if due > clock.now() {
                clock.sleep_until(due).await;
            }
            let whole = json::whole(&success);
            if success.operation == Operation::Videos {
                let video = json::video(&success, "completed");
                self.handler.place.store.keep(&format!("video_{}", success.id), video);
            }
            let body = if let Some((_, cut)) = broken {
                in_flight.abandon(completion / 2);
                EmulatorBody::half(whole, cut)
            } else {
                in_flight.finish();
                EmulatorBody::whole(whole)
            };
            service::json(StatusCode::OK, body)
        };
        if self.route.operation == Operation::Speech {
            let kind = HeaderValue::from_static("audio/mpeg");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
        site.count(|counts| counts.ok += 1);
        head::show(gauge, response.headers_mut());
        response
    }

    fn success(&self, site: &Site, ask: &Ask, cost: TokenCost) -> Success {
        let (random, serial) = self.handler.registry.identity();
        Success {
            operation: self.route.operation,
            id: format!("{:08x}{random:016x}{serial:08x}", self.handler.place.tag),
            model: Arc::clone(&site.model_json),
            created: self.handler.registry.clock.unix_seconds(),
            cost,
            truncated: ask.truncated,
            include_usage: ask.include_usage,
            include_encrypted: ask.include_encrypted,
            dimensions: ask.dimensions,
            inputs: ask.inputs,
            tier: None,
            filters_prompts: site.filters_prompts,
            keepalives: 0,
        }
    }

    /// State in the request that another resource made and only that resource can continue.
    fn foreign_state(&self, ask: &Ask) -> Option<(StatusCode, Value)> {
        let store = &self.handler.place.store;
        if let Some(id) = ask.previous.as_deref()
            && !store.made(id, "resp_")
        {
            return Some((StatusCode::BAD_REQUEST, errors::unknown_response(id)));
        }
        if ask.encrypted.iter().any(|content| !store.made(content, "enc_")) {
            return Some((StatusCode::BAD_REQUEST, errors::unreadable_reasoning()));
        }
        let id = ask.foreign.as_deref()?;
        Some((StatusCode::NOT_FOUND, errors::unknown_object(id)))
    }

    async fn pass(&self, delay: Duration) {
        if !delay.is_zero() {
            let clock = self.handler.registry.clock;
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
