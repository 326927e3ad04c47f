//! Counts answers by target and status, with percentiles.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;

use super::exchange::{End, Seen};

/// All answers so far.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) groups: BTreeMap<(usize, End), Group>,
    pub(super) all: Sums,
}

/// The answers of one target with one status.
pub(super) struct Group {
    pub(super) sums: Sums,
    /// The error message of the first of them.
    pub(super) message: Option<String>,
    /// By region and backend.
    pub(super) served: BTreeMap<(String, String), Sums>,
}

/// Counted and timed answers.
pub(super) struct Sums {
    pub(super) count: u64,
    pub(super) prompt_tokens: u64,
    pub(super) completion_tokens: u64,
    first_byte: Histogram<u32>,
    total: Histogram<u32>,
}

/// p50, p95 and p99 in milliseconds.
pub(super) type Percentiles = [f64; 3];

impl Tally {
    pub(super) fn add(&mut self, target: usize, seen: &Seen) {
        self.all.add(seen);
        let group = self.groups.entry((target, seen.end.clone()));
        let group = group.or_insert_with(|| Group {
            sums: Sums::default(),
            message: None,
            served: BTreeMap::new(),
        });
        group.sums.add(seen);
        if group.message.is_none() {
            group.message.clone_from(&seen.message);
        }
        let mut served = (seen.region.clone(), seen.backend.clone());
        // The target chooses these headers, and each name costs two histograms.
        if group.served.len() >= MAX_SERVERS && !group.served.contains_key(&served) {
            served = ("(others)".to_owned(), String::new());
        }
        group.served.entry(served).or_default().add(seen);
    }

    /// The number of answers with this status; refusals hidden in streams count as 429s.
    pub(super) fn with_status(&self, status: u16) -> u64 {
        let fits = |end: &End| match end {
            End::Status(seen) => *seen == status,
            End::Hidden(_) => status == 429,
            End::Failed(_) => false,
        };
        self.groups
            .iter()
            .filter(|((_, end), _)| fits(end))
            .map(|(_, group)| group.sums.count)
            .sum()
    }

    /// The number of answers with a success status and no error among their events.
    pub(super) fn successes(&self) -> u64 {
        let is_success = |end: &End| matches!(end, End::Status(200..=299));
        let groups = self.groups.iter().filter(|((_, end), _)| is_success(end));
        groups.map(|(_, group)| group.sums.count).sum()
    }

    pub(super) fn failed(&self) -> u64 {
        let failed = |end: &End| matches!(end, End::Failed(_));
        let groups = self.groups.iter().filter(|((_, end), _)| failed(end));
        groups.map(|(_, group)| group.sums.count).sum()
    }
}

impl Sums {
    pub(super) fn first_byte(&self) -> Percentiles {
        percentiles(&self.first_byte)
    }

    pub(super) fn total(&self) -> Percentiles {
        percentiles(&self.total)
    }

    fn add(&mut self, seen: &Seen) {
        self.count += 1;
        self.prompt_tokens = self.prompt_tokens.saturating_add(seen.prompt_tokens);
        self.completion_tokens = self.completion_tokens.saturating_add(seen.completion_tokens);
        self.first_byte.saturating_record(micros(seen.first_byte));
        self.total.saturating_record(micros(seen.total));
    }
}

impl Default for Sums {
    fn default() -> Self {
        Self {
            count: 0,
            prompt_tokens: 0,
            completion_tokens: 0,
            first_byte: histogram(),
            total: histogram(),
        }
    }
}

impl End {
    /// `0-200`, the reference's name for a group.
    pub(super) fn name(&self, target: usize) -> String {
        match self {
            Self::Status(status) => format!("{target}-{status}"),
            Self::Hidden(status) => format!("{target}-{status} (error in the stream)"),
            Self::Failed(reason) => format!("{target}-error: {reason}"),
        }
    }
}

fn histogram() -> Histogram<u32> {
    let made = Histogram::new_with_bounds(1, MAX_LATENCY_US, 3);
    made.expect("the bounds are a microsecond and a day, and three digits are allowed")
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).clamp(1, MAX_LATENCY_US)
}

fn percentiles(histogram: &Histogram<u32>) -> Percentiles {
    PARTS.map(|part| histogram.value_at_quantile(part) as f64 / 1e3)
}

const MAX_SERVERS: usize = 100;
/// One day, in microseconds.
const MAX_LATENCY_US: u64 = 86_400_000_000;
const PARTS: [f64; 3] = [0.50, 0.95, 0.99];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_grouped_by_target_and_status_and_below_that_by_server() {
        let mut tally = Tally::default();
        for (target, status, region, millis) in [
            (0, 200, "East US", 10),
            (0, 200, "West US", 30),
            (0, 429, "East US", 1),
            (1, 200, "", 5),
        ] {
            let mut seen = Seen::failed("", Duration::from_millis(millis));
            seen.end = End::Status(status);
            seen.region = region.to_owned();
            tally.add(target, &seen);
        }
        tally.add(1, &Seen::failed("refused", Duration::ZERO));
        let names: Vec<_> = tally.groups.keys().map(|(target, end)| end.name(*target)).collect();
        assert_eq!(names, ["0-200", "0-429", "1-200", "1-error: refused"]);
        assert_eq!(tally.groups[&(0, End::Status(200))].served.len(), 2);
        assert_eq!((tally.with_status(200), tally.with_status(429), tally.failed()), (3, 1, 1));
        let [p50, _, p99] = tally.groups[&(0, End::Status(200))].sums.total();
        assert!((9.9..=10.1).contains(&p50) && (29.9..=30.1).contains(&p99), "{p50} {p99}");
    }
}
