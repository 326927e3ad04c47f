//! A call to a backend, in the semantic conventions for HTTP clients.

use http::{Uri, Version};
use opentelemetry::{
    KeyValue,
    trace::{Span as _, Status},
};
use opentelemetry_sdk::trace::Span;
use tower_spillover::served::Attempt;

use crate::{
    access_record::reason,
    telemetry::{
        labels::Labels,
        metrics::millis,
        trace::{Answer, Called},
    },
};

/// Pairs calls with their attempts; some attempts have no call.
///
/// Both are in the order in which they began. An abandoned request has calls, but no attempts.
pub(crate) fn pair<'a>(
    labels: &Labels<'a>,
    calls: Vec<Called>,
) -> (Vec<(Called, Option<&'a Attempt>)>, Vec<&'a Attempt>) {
    let served = labels.record.served.as_ref();
    let mut attempts: Vec<&Attempt> =
        served.into_iter().flat_map(|served| served.attempts()).collect();
    let mut others = Vec::new();
    let pairs = calls.into_iter().map(|call| {
        let found = attempts.iter().position(|attempt| fits(labels, attempt, &call));
        let attempt = found.map(|number| {
            others.extend(attempts.drain(..number));
            attempts.remove(0)
        });
        (call, attempt)
    });
    let pairs = pairs.collect();
    others.extend(attempts);
    (pairs, others)
}

/// Ends the span of the call with this number among its request's calls.
pub(crate) fn end(labels: &Labels<'_>, number: usize, call: Called, attempt: Option<&Attempt>) {
    let Called { mut span, uri, ended, answer, .. } = call;
    let mut attributes = of_address(&uri);
    if number > 0 {
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        attributes.push(KeyValue::new("http.request.resend_count", number));
    }
    attributes.extend(of_answer(&mut span, answer));
    let name = attempt.map(Attempt::backend).or_else(|| only_backend(labels, &uri));
    if let Some(name) = name {
        attributes.push(KeyValue::new("spillover.backend", name.to_owned()));
        attributes.push(KeyValue::new("spillover.tier", labels.tier(name)));
        if let Some(region) = labels.configured(name).and_then(|backend| backend.region.clone()) {
            attributes.push(KeyValue::new("spillover.region", region));
        }
    }
    if let Some(wait) = attempt.and_then(|attempt| attempt.hint().duration()) {
        attributes.push(KeyValue::new("spillover.hint_ms", signed(millis(wait))));
    }
    if let Some(why) = attempt.and_then(Attempt::reason) {
        attributes.push(KeyValue::new("spillover.reason", reason(why)));
    }
    span.set_attributes(attributes);
    span.end_with_timestamp(ended);
}

/// The path comes from the configuration or the client; a query may contain secrets.
fn of_address(uri: &Uri) -> Vec<KeyValue> {
    let mut attributes = Vec::with_capacity(12);
    if let (Some(host), Some(scheme)) = (uri.host(), uri.scheme_str()) {
        let (_, port) = place(uri);
        let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
        let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
        let full = format!("{scheme}://{place}{}", uri.path());
        attributes.extend([
            KeyValue::new("server.address", host.to_owned()),
            KeyValue::new("server.port", i64::from(port)),
            KeyValue::new("url.full", full),
        ]);
    }
    attributes
}

/// A refusal is an error for a client's span, but not for a server's.
fn of_answer(span: &mut Span, answer: Answer) -> Vec<KeyValue> {
    let mut attributes = Vec::with_capacity(3);
    let error = match answer {
        Ok((status, version)) => {
            let code = i64::from(status.as_u16());
            attributes.push(KeyValue::new("http.response.status_code", code));
            if let Some(version) = of_protocol(version) {
                attributes.push(KeyValue::new("network.protocol.version", version));
            }
            let is_error = status.is_client_error() || status.is_server_error();
            is_error.then(|| status.as_str().to_owned())
        }
        Err(kind) => Some(kind.to_owned()),
    };
    if let Some(error) = error {
        attributes.push(KeyValue::new("error.type", error));
        span.set_status(Status::error(""));
    }
    attributes
}

const fn of_protocol(version: Version) -> Option<&'static str> {
    match version {
        Version::HTTP_10 => Some("1.0"),
        Version::HTTP_11 => Some("1.1"),
        Version::HTTP_2 => Some("2"),
        _ => None,
    }
}

/// Whether `call` can belong to `attempt`. An attempt without an answer may have failed before
/// there was a call.
fn fits(labels: &Labels<'_>, attempt: &Attempt, call: &Called) -> bool {
    let backend = labels.configured(attempt.backend());
    (attempt.status().is_some() || call.answer.is_err())
        && backend.is_some_and(|backend| is_at(&backend.endpoint, &call.uri))
}

fn only_backend<'a>(labels: &Labels<'a>, uri: &Uri) -> Option<&'a str> {
    let mut there = labels.backends().filter(|backend| is_at(&backend.endpoint, uri));
    let backend = there.next().filter(|_| there.next().is_none())?;
    Some(&backend.name)
}

fn is_at(endpoint: &str, uri: &Uri) -> bool {
    endpoint.parse().is_ok_and(|endpoint: Uri| {
        let (here, there) = (place(&endpoint), place(uri));
        here.0.eq_ignore_ascii_case(there.0) && here.1 == there.1
    })
}

fn place(uri: &Uri) -> (&str, u16) {
    let by_scheme = if uri.scheme_str() == Some("http") { 80 } else { 443 };
    (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(by_scheme))
}

pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
