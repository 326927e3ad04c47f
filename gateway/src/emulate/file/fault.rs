//! Scripted misbehaviour as TOML: which fault, how often, how late.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use spillover_emulator::Fault;

use super::span::Span;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FaultText {
    pass: Option<bool>,
    status: Option<u16>,
    reset: Option<bool>,
    cut_after: Option<usize>,
    hidden_throttle: Option<Span>,
    after: Option<Span>,
    times: Option<u32>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Option<String>,
}

impl FaultText {
    /// The fault as often as it is wanted.
    pub(super) fn faults(&self) -> Result<Vec<Fault>, String> {
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
        if let Some(after) = self.after {
            fault = fault.after(after.0);
        }
        let times = self.times.unwrap_or(1);
        if times > MOST {
            return Err(format!("times is more than {MOST}"));
        }
        Ok(vec![fault; times as usize])
    }

    fn kind(&self) -> Result<Fault, String> {
        let stated = [
            self.pass == Some(true),
            self.status.is_some(),
            self.reset == Some(true),
            self.cut_after.is_some(),
            self.hidden_throttle.is_some(),
        ];
        match stated.iter().filter(|stated| **stated).count() {
            0 if self.after.is_some() || !self.headers.is_empty() => return Ok(Fault::pass()),
            1 => {}
            _ => {
                let kinds = "pass = true, status, reset = true, cut_after, hidden_throttle";
                return Err(format!("a fault is exactly one of {kinds}"));
            }
        }
        Ok(match (self.status, self.cut_after, self.hidden_throttle) {
            // A head of 1xx would not be an answer.
            (Some(status @ 200..=599), ..) => Fault::status(status),
            (Some(_), ..) => return Err("status must lie between 200 and 599".to_owned()),
            (_, Some(events), _) => Fault::cut_stream_after(events),
            (_, _, Some(wait)) => Fault::hidden_throttle(wait.0),
            _ if self.reset == Some(true) => Fault::reset(),
            _ => Fault::pass(),
        })
    }
}

const MOST: u32 = 100_000;
