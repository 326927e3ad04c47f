//! Events as `tracing` events.

use std::time::Duration;

use tracing::{Level, debug, enabled, warn};

use super::{Event, EventSink, Source};
use crate::served::{Served, Why};

/// Turns the events of layers into events of the `tracing` crate, with the target `tower_spillover`.
///
/// Decisions are at level `DEBUG`. Problems for an operator are at `WARN`: a backend that rejects its
/// credential or lacks its deployment, and a used-up quota. `docs/events.md` lists the fields. None
/// of them contains anything of a request's head or body.
///
/// Needs the feature `tracing`.
#[derive(Clone, Copy, Debug, Default)]
pub struct TracingSink;

impl EventSink for TracingSink {
    fn on_event(&self, source: Source, event: &Event<'_>) {
        if !is_wanted(event) {
            return;
        }
        let layer = source.label();
        match event {
            Event::Attempted(attempt) => {
                // An answered attempt is reported in `finished`.
                let Some(why) = attempt.why() else { return };
                let (backend, status) = (attempt.backend(), attempt.status().map(|it| it.as_u16()));
                let hint_ms = attempt.hint().duration().map(millis);
                let at_ms = millis(attempt.at());
                match why {
                    why @ (Why::Misconfigured | Why::Quota) => warn!(
                        target: TARGET,
                        layer,
                        backend,
                        status,
                        why = why.label(),
                        hint_ms,
                        at_ms,
                        "attempted"
                    ),
                    why => debug!(
                        target: TARGET,
                        layer,
                        backend,
                        status,
                        why = why.label(),
                        hint_ms,
                        at_ms,
                        "attempted"
                    ),
                }
            }
            Event::Closed { backend, time } => {
                debug!(target: TARGET, layer, backend, time_ms = millis(*time), "closed");
            }
            Event::Waits(why) => {
                let (time_ms, limit_ms) = times(Some(*why));
                debug!(target: TARGET, layer, why = why.label(), time_ms, limit_ms, "waits");
            }
            Event::Spills(why) => {
                let (time_ms, limit_ms) = times(*why);
                let why = why.map(|why| why.label());
                debug!(target: TARGET, layer, why, time_ms, limit_ms, "spills");
            }
            Event::SentTwice => debug!(target: TARGET, layer, "sent_twice"),
            Event::Finished { served, status } => {
                let why = served.why();
                let (time_ms, limit_ms) = times(why);
                debug!(
                    target: TARGET,
                    layer,
                    decision = decision(served),
                    backend = served.backend(),
                    status = status.map(|status| status.as_u16()),
                    why = why.map(|why| why.label()),
                    time_ms,
                    limit_ms,
                    attempts = served.attempts().len(),
                    waited_ms = millis(served.waited()),
                    "finished"
                );
            }
            Event::Cancelled { served } => debug!(
                target: TARGET,
                layer,
                attempts = served.attempts().len(),
                waited_ms = millis(served.waited()),
                why = served.why().map(|why| why.label()),
                "cancelled"
            ),
        }
    }
}

/// Whether events are enabled at the level of this one, checked before its fields are computed.
fn is_wanted(event: &Event<'_>) -> bool {
    match event {
        Event::Attempted(_) => enabled!(target: TARGET, Level::WARN),
        _ => enabled!(target: TARGET, Level::DEBUG),
    }
}

/// `served`, `spilled` or `refused`.
pub(super) fn decision(served: &Served) -> &'static str {
    match served.why_refused() {
        Some(_) => "refused",
        None if served.spilled() => "spilled",
        None => "served",
    }
}

fn times(why: Option<Why>) -> (Option<u64>, Option<u64>) {
    let times = why.and_then(|why| why.times());
    (times.map(|it| millis(it.time())), times.map(|it| millis(it.limit())))
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

pub(super) const TARGET: &str = "tower_spillover";
