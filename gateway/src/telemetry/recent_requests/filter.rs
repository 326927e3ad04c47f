//! Selects among the last requests by the page's query.

use http::StatusCode;
use tower_spillover::{Served, azure::percent};

use super::Finished;
use crate::{access_record, telemetry::labels::Decision};

/// The required properties of a request; `None` matches any.
#[derive(Debug)]
pub(super) struct Filter {
    id: Option<String>,
    client: Option<String>,
    model: Option<String>,
    why: Option<String>,
    decision: Option<String>,
    status: Option<String>,
    pub(super) limit: usize,
}

impl Filter {
    pub(super) fn read(query: &str) -> Result<Self, String> {
        let mut filter = Self {
            id: None,
            client: None,
            model: None,
            why: None,
            decision: None,
            status: None,
            limit: DEFAULT_LIMIT,
        };
        let mut limit = None;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            // Forms encode a space as a plus.
            let spaced = value.replace('+', " ");
            let value = percent::decode_text(&spaced)
                .filter(|value| !value.is_empty())
                .ok_or_else(|| format!("{name:?} has no readable value; write it like {name}=VALUE, percent-encoded"))?
                .into_owned();
            let place = match name {
                "id" => &mut filter.id,
                "client" => &mut filter.client,
                "model" => &mut filter.model,
                "why" => &mut filter.why,
                "decision" => &mut filter.decision,
                "status" => &mut filter.status,
                "limit" => &mut limit,
                _ => return Err(format!("{name:?} is not a filter; use {NAMES}")),
            };
            if place.replace(value).is_some() {
                return Err(format!("{name:?} appears twice; write it once"));
            }
        }
        let wrong = |name: &str, value: &str, right: &str| format!("{name} is {value:?}; {right}");
        if let Some(limit) = limit {
            let count = limit.parse().ok().filter(|count| *count >= 1);
            filter.limit = count
                .ok_or_else(|| wrong("limit", &limit, "write a number of requests, from 1 on"))?;
        }
        // A value that no request can have would look like an answer: that there were none.
        let is_decision = |value: &&str| DECISIONS.contains(value);
        if let Some(value) = filter.decision.as_deref().filter(|value| !is_decision(value)) {
            return Err(wrong("decision", value, &format!("use {}", DECISIONS.join(", "))));
        }
        let is_status = |value: &&str| value.parse::<StatusCode>().is_ok();
        if let Some(value) = filter.status.as_deref().filter(|value| !is_status(value)) {
            return Err(wrong("status", value, "write a status such as 429"));
        }
        Ok(filter)
    }

    pub(super) fn takes(&self, finished: &Finished) -> bool {
        let record = &finished.record;
        let fits = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| found == Some(wanted))
        };
        fits(&self.client, Some(&record.client))
            && fits(&self.model, record.model.as_deref())
            && self.decision.as_deref().is_none_or(|decision| has_decision(finished, decision))
            && fits(&self.status, Some(record.status.as_str()))
            && self.id.as_deref().is_none_or(|id| has_id(finished, id))
            && self.why.as_deref().is_none_or(|why| has_reason(finished, why))
    }
}

/// Whether a request has the `id`: its own, its trace's, its client's or the service's.
fn has_id(finished: &Finished, id: &str) -> bool {
    let record = &finished.record;
    record.id == id
        || record.ids.iter().any(|(_, other)| other.eq_ignore_ascii_case(id))
        || finished.trace.is_some_and(|trace| trace.to_string().eq_ignore_ascii_case(id))
}

/// Whether the request was answered by `decision`, or by Standard instead of a PTU: `spilled`.
fn has_decision(finished: &Finished, decision: &str) -> bool {
    let served = &finished.record.served;
    match decision {
        SPILLED => {
            finished.decision == Decision::Standard && served.as_ref().is_some_and(Served::spilled)
        }
        _ => finished.decision.as_str() == decision,
    }
}

/// Whether the request spilled, waited or was refused for `why`, or one of its attempts was.
fn has_reason(finished: &Finished, why: &str) -> bool {
    let Some(served) = &finished.record.served else { return false };
    access_record::reasons(served).any(|(_, reason)| reason.label() == why)
        || served.attempts().any(|attempt| access_record::reason_of(attempt) == Some(why))
}

const DEFAULT_LIMIT: usize = 100;
const SPILLED: &str = "spilled";
/// Those of the metrics, and `spilled`, as in `x-spillover-decision`.
const DECISIONS: [&str; 5] = [
    Decision::Ptu.as_str(),
    Decision::Standard.as_str(),
    SPILLED,
    Decision::Refused.as_str(),
    Decision::Gateway.as_str(),
];
const NAMES: &str = "id, client, model, why, decision, status and limit";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_does_not_exist_or_cannot_be_read_is_named_with_its_remedy() {
        for (query, told) in [
            ("clients=a", "\"clients\" is not a filter; use id, client, model"),
            ("client=", "\"client\" has no readable value"),
            ("client=%zz", "\"client\" has no readable value"),
            ("limit=0", "limit is \"0\"; write a number"),
            ("limit=many", "limit is \"many\"; write a number"),
            ("id=a&id=b", "\"id\" appears twice"),
            ("limit=1&limit=2", "\"limit\" appears twice"),
            (
                "decision=spill",
                "decision is \"spill\"; use ptu, standard, spilled, refused, gateway",
            ),
            ("status=4xx", "status is \"4xx\"; write a status such as 429"),
        ] {
            let problem = Filter::read(query).map(drop).expect_err(query);
            assert!(problem.starts_with(told), "{problem}");
        }
        let filter = Filter::read("&model=gpt%2D4o&client=team+a&limit=7&").expect("it is good");
        assert_eq!((filter.model.as_deref(), filter.limit), (Some("gpt-4o"), 7));
        assert_eq!(filter.client.as_deref(), Some("team a"));
    }
}
