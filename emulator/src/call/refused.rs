//! Answers that refuse or fail.

use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode, header};
use serde_json::Value;

use super::{Call, event_stream};
use crate::{
    EmulatorBody, Refusal,
    answer::{
        errors::{self, Refused},
        events, head, json,
    },
    ask::{Ask, TokenCost},
    routes::{self, Operation},
    service::{self, plain},
    site::{Gauge, Site},
};

impl Call<'_> {
    /// Refuses a request that no deployment could serve.
    pub(super) fn faulty(
        &self,
        site: &Site,
        status: StatusCode,
        body: &Value,
    ) -> Response<EmulatorBody> {
        let gauge = site.count_unserved(self.handler.registry.clock);
        site.count(|counts| counts.failed += 1);
        let mut response = plain(status, body);
        head::show(&gauge, response.headers_mut());
        response
    }

    pub(super) fn refused(
        &self,
        site: &Site,
        refusal: Refusal,
        wait: Option<Duration>,
        gauge: &Gauge,
    ) -> Response<EmulatorBody> {
        site.count(|counts| counts.throttled += 1);
        let body = self.who(site).body(refusal, wait);
        let mut response = plain(refusal.status(), &body);
        let headers = response.headers_mut();
        head::show(gauge, headers);
        head::show_axis(refusal, headers);
        if let Some(wait) = wait {
            head::show_wait(wait, headers);
        }
        response
    }

    /// A refusal behind status 200; `None` if this kind of answer cannot hide one.
    pub(super) fn hidden(
        &self,
        site: &Site,
        refusal: Refusal,
        wait: Option<Duration>,
        gauge: &Gauge,
    ) -> Option<Response<EmulatorBody>> {
        let streams = self.ask.as_ref().is_ok_and(|ask| ask.stream);
        let message = self.who(site).message(refusal, None);
        let success = self.success(site, &Ask::default(), TokenCost::default());
        let mut response = match self.route.operation {
            Operation::Embeddings => return None,
            _ if streams => {
                let events = events::hidden_refusal(&success, refusal, &message);
                event_stream(EmulatorBody::streamed(events))
            }
            Operation::Responses => {
                let failed = json::failed_response(&success, refusal, &message.into());
                service::json(StatusCode::OK, EmulatorBody::whole(failed))
            }
            _ => return None,
        };
        site.count(|counts| counts.throttled += 1);
        let headers = response.headers_mut();
        head::show(gauge, headers);
        if let Some(wait) = wait {
            // Seconds only: nothing else was observed on such answers.
            headers.insert(header::RETRY_AFTER, errors::whole_seconds(wait).into());
        }
        Some(response)
    }

    pub(super) fn scripted(
        &self,
        site: &Site,
        status: StatusCode,
        body: Option<&Bytes>,
    ) -> Response<EmulatorBody> {
        let gauge = site.count_unserved(self.handler.registry.clock);
        site.count(|counts| match status {
            StatusCode::TOO_MANY_REQUESTS => counts.throttled += 1,
            status if status.is_success() => counts.ok += 1,
            _ => counts.failed += 1,
        });
        let mut response = match body {
            Some(body) => service::json(status, EmulatorBody::whole(body.clone())),
            None if status == StatusCode::TOO_MANY_REQUESTS => {
                plain(status, &self.who(site).body(site.usual_refusal(), None))
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
            api_version: routes::api_version(self.handler.head.uri.query()),
            model: &site.model,
            deployment: &site.name,
            region: &self.handler.place.region,
        }
    }
}
