//! Writes the headers that explain an answer.

use std::{
    fmt::{self, Write},
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue};
use tower_spillover::{
    Served,
    classify::{Hint, Outcome},
    served::Why,
};

use crate::access_record;

/// What happened to a request, up to the head of its answer.
pub(crate) struct DecisionHeaders<'a> {
    pub(crate) served: &'a Served,
    pub(crate) first_tier: &'static str,
    /// Since its head arrived; `sent` counts since the layers received it.
    pub(crate) total: Duration,
    pub(crate) in_layers: Duration,
}

impl DecisionHeaders<'_> {
    /// Adds the headers to an answer.
    pub(crate) fn write(&self, headers: &mut HeaderMap, with_trace: bool) {
        let served = self.served;
        headers.reserve(8);
        let tier = match served.backend() {
            None => "refused",
            Some(_) if is_refusal(served) => "refused",
            Some(_) if served.spilled() => "spilled",
            Some(_) => self.first_tier,
        };
        headers.insert(DECISION, decision(served, tier));
        if let Some(held) = served.held() {
            headers.insert(STICKY, HeaderValue::from_static(access_record::held(held)));
        }
        if let Ok(timing) = HeaderValue::try_from(self.timing()) {
            headers.append(SERVER_TIMING, timing);
        }
        if with_trace && let Some(trace) = written(&Trace(served)) {
            headers.insert(TRACE, trace);
        }
    }

    /// How long the request waited, how long the last backend took, and the total time.
    fn timing(&self) -> String {
        let Self { served, total, in_layers, .. } = self;
        let mut text = String::with_capacity(LIKELY_TIMING_BYTES);
        if !served.waited().is_zero() {
            text.push_str("wait;dur=");
            push_millis(&mut text, served.waited());
            text.push_str(", ");
        }
        if let Some(last) = served.attempts().next_back() {
            text.push_str("upstream;dur=");
            push_millis(&mut text, in_layers.saturating_sub(last.at()));
            text.push_str(", ");
        }
        text.push_str("total;dur=");
        push_millis(&mut text, *total);
        text
    }
}

fn is_refusal(served: &Served) -> bool {
    let last = served.attempts().next_back();
    last.is_some_and(|last| matches!(last.outcome(), Outcome::Throttled(_)))
}

/// The tier that answered and, if that was not the first attempt, why, and what preceded it.
fn decision(served: &Served, tier: &'static str) -> HeaderValue {
    let (attempts, why) = (served.attempts().len(), served.why());
    let is_plain = attempts == 1
        && served.waited().is_zero()
        && served.replayable()
        && why.is_none()
        && !served.went_on_as_default()
        && !served.gate_was_alone();
    if is_plain && !served.spilled() {
        return HeaderValue::from_static(tier);
    }
    let mut text = String::with_capacity(LIKELY_DECISION_BYTES);
    text.push_str(tier);
    if let Some(why) = why {
        _ = write!(text, "; why={why}");
    }
    _ = write!(text, "; waited={}ms; attempts={attempts}", served.waited().as_millis());
    if served.rotated() {
        text.push_str("; rotated");
    }
    if !served.replayable() && why != Some(Why::NotReplayable) {
        text.push_str("; not-replayable");
    }
    if let Some(late) = served.late() {
        text.push_str("; late=");
        text.push_str(access_record::late(late));
    }
    if served.went_on_as_default() {
        text.push_str("; as-default-tier");
    }
    if served.gate_was_alone() {
        text.push_str("; gate=local");
    }
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(tier))
}

fn written(what: &impl fmt::Display) -> Option<HeaderValue> {
    let mut text = String::with_capacity(96);
    write!(text, "{what}").ok()?;
    HeaderValue::try_from(text).ok()
}

/// Milliseconds with three digits after the point.
fn push_millis(text: &mut String, duration: Duration) {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    // Of four digits, so that the last three have their zeros.
    let thousandths = 1_000 + micros % 1_000;
    text.push_str(itoa::Buffer::new().format(micros / 1_000));
    text.push('.');
    text.push_str(&itoa::Buffer::new().format(thousandths)[1..]);
}

/// Every attempt as JSON. Names consist of characters that need no escaping in JSON.
struct Trace<'a>(&'a Served);

impl fmt::Display for Trace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('[')?;
        for (index, attempt) in self.0.attempts().take(MAX_TRACED_ATTEMPTS).enumerate() {
            let separator = if index == 0 { "" } else { "," };
            let (name, at) = (attempt.backend(), attempt.at().as_millis());
            write!(f, r#"{separator}{{"backend":"{name}","at_ms":{at},"status":"#)?;
            match attempt.status() {
                Some(status) => f.write_str(status.as_str())?,
                None => f.write_str("null")?,
            }
            match attempt.hint() {
                Hint::After(wait) => write!(f, r#","hint_ms":{}"#, wait.as_millis())?,
                Hint::Zero => f.write_str(r#","hint_ms":0"#)?,
                _ => f.write_str(r#","hint_ms":null"#)?,
            }
            match access_record::reason_of(attempt) {
                Some(reason) => write!(f, r#","reason":"{reason}"}}"#)?,
                None => f.write_str(r#","reason":null}"#)?,
            }
        }
        f.write_char(']')
    }
}

/// The length of most timings, with a wait.
const LIKELY_TIMING_BYTES: usize = 64;
/// The length of most decisions with a reason.
const LIKELY_DECISION_BYTES: usize = 80;
/// Header lines are limited in length.
const MAX_TRACED_ATTEMPTS: usize = 32;
const DECISION: HeaderName = HeaderName::from_static("x-spillover-decision");
const STICKY: HeaderName = HeaderName::from_static("x-spillover-sticky");
const TRACE: HeaderName = HeaderName::from_static("x-spillover-trace");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
