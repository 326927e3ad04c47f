//! Faults in TOML: their kind, their delay, and the affected requests.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use spillover_emulator::{Fault, Refusal};

use super::span::Span;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FaultText {
    pass: Option<bool>,
    status: Option<u16>,
    reset: Option<bool>,
    cut_after: Option<usize>,
    refusal: Option<RefusalText>,
    retry_after: Option<Span>,
    in_stream: Option<bool>,
    silent: Option<Span>,
    after: Option<Span>,
    times: Option<u32>,
    share: Option<f64>,
    marker: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Option<String>,
}

impl FaultText {
    /// For the list `faults`: the fault, repeated as often as requested.
    pub(super) fn scripted(&self) -> Result<Vec<Fault>, String> {
        if self.share.is_some() || self.marker.is_some() {
            return Err(
                "share belongs into `failures`, marker into `poison`: a fault in this list \
                        happens to one request, whichever it is"
                    .to_owned(),
            );
        }
        let times = self.times.unwrap_or(1);
        if times > MAX_TIMES {
            return Err(format!("times is more than {MAX_TIMES}"));
        }
        Ok(vec![self.fault()?; times as usize])
    }

    /// For the list `failures`: the share of the requests, and their fault.
    pub(super) fn drawn(&self) -> Result<(f64, Fault), String> {
        match self.share {
            _ if self.times.is_some() || self.marker.is_some() => {
                Err("times belongs into `faults`, marker into `poison`: remove it".to_owned())
            }
            Some(share) if (0.0..=1.0).contains(&share) => Ok((share, self.fault()?)),
            _ => Err("needs a share of the requests from 0 to 1: add `share = 0.01`".to_owned()),
        }
    }

    /// For the list `poison`: a marker in requests, and their fault.
    pub(super) fn marked(&self) -> Result<(String, Fault), String> {
        match &self.marker {
            _ if self.times.is_some() || self.share.is_some() => {
                Err("times belongs into `faults`, share into `failures`: remove it".to_owned())
            }
            Some(marker) if !marker.is_empty() => Ok((marker.clone(), self.fault()?)),
            _ => Err("needs what a request has in its body or in a header: add \
                      `marker = \"POISON\"`"
                .to_owned()),
        }
    }

    fn fault(&self) -> Result<Fault, String> {
        let mut fault = self.kind()?;
        for (name, value) in &self.headers {
            let legal = name.parse::<HeaderName>().is_ok() && HeaderValue::from_str(value).is_ok();
            if !legal {
                return Err(format!("the header {name:?} is not allowed in an answer"));
            }
            fault = fault.header(name, value);
        }
        if let Some(body) = &self.body {
            if self.status.is_none() {
                return Err("a body belongs to a status: add `status`".to_owned());
            }
            fault = fault.body(body.clone());
        }
        if self.in_stream == Some(true) {
            if self.refusal.is_none() {
                return Err("in_stream belongs to a refusal: add `refusal = \"tokens\"`".to_owned());
            }
            fault = fault.in_stream();
        }
        if let Some(wait) = self.retry_after {
            fault = fault.retry_after(wait.0);
        }
        if let Some(silence) = self.silent {
            fault = fault.silent_for(silence.0);
        }
        if let Some(after) = self.after {
            fault = fault.after(after.0);
        }
        Ok(fault)
    }

    /// Whether it modifies an ordinary answer.
    fn alters_answers(&self) -> bool {
        let times = [self.silent, self.after, self.retry_after];
        times.iter().any(Option::is_some) || !self.headers.is_empty()
    }

    fn kind(&self) -> Result<Fault, String> {
        let stated = [
            self.pass == Some(true),
            self.status.is_some(),
            self.reset == Some(true),
            self.cut_after.is_some(),
            self.refusal.is_some(),
        ];
        match stated.iter().filter(|stated| **stated).count() {
            0 if self.alters_answers() => return Ok(Fault::pass()),
            1 => {}
            _ => {
                let kinds = "pass = true, status, refusal, reset = true, cut_after";
                return Err(format!("a fault is exactly one of {kinds}"));
            }
        }
        Ok(match (self.status, self.cut_after, self.refusal) {
            // A 1xx head would not be an answer.
            (Some(status @ 200..=599), ..) => Fault::status(status),
            (Some(_), ..) => return Err("status must lie between 200 and 599".to_owned()),
            (_, Some(events), _) => Fault::cut_stream_after(events),
            (_, _, Some(refusal)) => Fault::refusal(refusal.into()),
            _ if self.reset == Some(true) => Fault::reset(),
            _ => Fault::pass(),
        })
    }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RefusalText {
    Utilization,
    Tokens,
    Calls,
    Capacity,
    Flex,
    Overloaded,
    ServerOverloaded,
}

impl From<RefusalText> for Refusal {
    fn from(text: RefusalText) -> Self {
        match text {
            RefusalText::Utilization => Self::Utilization,
            RefusalText::Tokens => Self::Tokens,
            RefusalText::Calls => Self::Calls,
            RefusalText::Capacity => Self::Capacity,
            RefusalText::Flex => Self::Flex,
            RefusalText::Overloaded => Self::Overloaded,
            RefusalText::ServerOverloaded => Self::ServerOverloaded,
        }
    }
}

const MAX_TIMES: u32 = 100_000;
