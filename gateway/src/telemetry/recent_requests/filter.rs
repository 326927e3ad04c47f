//! Selects among the last requests by the page's query.

use tower_spillover::azure::percent;

use super::Finished;
use crate::access_record;

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
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| *limit >= 1);
                    filter.limit = limit.ok_or_else(|| {
                        format!("limit is {value:?}; write a number of requests, from 1 on")
                    })?;
                    continue;
                }
                _ => return Err(format!("{name:?} is not a filter; use {NAMES}")),
            };
            if place.replace(value).is_some() {
                return Err(format!("{name:?} appears twice; write it once"));
            }
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
            && fits(&self.decision, Some(finished.decision.as_str()))
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

/// Whether the request spilled, waited or was refused for `why`, or one of its attempts was.
fn has_reason(finished: &Finished, why: &str) -> bool {
    let Some(served) = &finished.record.served else { return false };
    access_record::reasons(served).any(|(_, reason)| reason.label() == why)
        || served.attempts().any(|attempt| access_record::reason_of(attempt) == Some(why))
}

const DEFAULT_LIMIT: usize = 100;
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
        ] {
            let problem = Filter::read(query).map(drop).expect_err(query);
            assert!(problem.starts_with(told), "{problem}");
        }
        let filter = Filter::read("&model=gpt%2D4o&client=team+a&limit=7&").expect("it is good");
        assert_eq!((filter.model.as_deref(), filter.limit), (Some("gpt-4o"), 7));
        assert_eq!(filter.client.as_deref(), Some("team a"));
    }
}
