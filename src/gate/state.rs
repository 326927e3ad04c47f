//! What a gate knows of its PTU, as readable text.

use std::{fmt, time::Duration};

use super::core::{Evidence, Knowledge};

/// What a [`Gate`](crate::Gate) bases its decisions on, for how long, and why.
///
/// `Display` shows all three, like `measured for 74 s: the PTU drains 18,683 weighted tokens/s`.
#[derive(Clone, Copy, PartialEq)]
pub struct GateState {
    evidence: Evidence,
    lasted: Duration,
}

impl GateState {
    pub(super) const fn new(evidence: Evidence, lasted: Duration) -> Self {
        Self { evidence, lasted }
    }

    /// The state of its knowledge.
    pub const fn knowledge(&self) -> Knowledge {
        self.evidence.knowledge()
    }

    /// How long that has been so. A change that only time brings, like the end of a busy period,
    /// counts from when it was noticed: at the next request, or at the next call of
    /// [`Gate::state`](crate::Gate::state).
    pub const fn lasted(&self) -> Duration {
        self.lasted
    }

    /// The reason with its figures: a sentence without a full stop, for people. The wording may
    /// change in any release.
    pub fn why(&self) -> impl fmt::Display + use<> {
        EvidenceText(self.evidence)
    }
}

impl fmt::Display for GateState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, lasted) = (self.knowledge().as_str(), Time(self.lasted.as_secs_f64()));
        write!(f, "{name} for {lasted}: {}", EvidenceText(self.evidence))
    }
}

impl fmt::Debug for GateState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

struct EvidenceText(Evidence);

impl fmt::Display for EvidenceText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Evidence::Open => f.write_str("the PTU does not refuse"),
            Evidence::Learning { refusals, rate: None } => {
                write!(f, "{refusals} {} so far, and no drain rate yet", refusals_word(refusals))
            }
            Evidence::Learning { refusals, rate: Some(rate) } => write!(
                f,
                "{refusals} {} so far, by which the PTU drains about {}",
                refusals_word(refusals),
                Rate(rate)
            ),
            Evidence::Measured { rate } => write!(f, "the PTU drains {}", Rate(rate)),
            Evidence::Shared { rate, lost } => write!(
                f,
                "others took {:.0} % of the last openings, and leave {}",
                100.0 * lost,
                Rate(rate)
            ),
            Evidence::DoubtedHint { hint, expected } => {
                write!(f, "a hint of {} where {} was expected", Time(hint), Time(expected))
            }
            Evidence::ConstantHint { hint } => {
                write!(f, "every refusal has the same hint of {}, so it is ignored", Time(hint))
            }
            Evidence::Outage { dry, refusals } => write!(
                f,
                "nothing was admitted for {}, and {refusals} {} in a row",
                Time(dry),
                refusals_word(refusals)
            ),
        }
    }
}

const fn refusals_word(count: u32) -> &'static str {
    if count == 1 { "refusal" } else { "refusals" }
}

/// Seconds.
struct Time(f64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            seconds if seconds < 1.0 => write!(f, "{:.0} ms", 1e3 * seconds),
            seconds if seconds < 10.0 => write!(f, "{seconds:.1} s"),
            seconds => write!(f, "{seconds:.0} s"),
        }
    }
}

/// Weighted tokens per second.
struct Rate(f64);

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:.0}", self.0);
        for (index, digit) in digits.chars().enumerate() {
            let is_group = (digits.len() - index).is_multiple_of(3);
            if index > 0 && is_group {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        f.write_str(" weighted tokens/s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_says_its_name_its_age_and_its_reason() {
        let rate = 18_683.2;
        let said = |evidence| GateState::new(evidence, Duration::from_secs(74)).to_string();
        for (evidence, expected) in [
            (Evidence::Open, "open for 74 s: the PTU does not refuse"),
            (
                Evidence::Learning { refusals: 1, rate: None },
                "learning for 74 s: 1 refusal so far, and no drain rate yet",
            ),
            (
                Evidence::Learning { refusals: 3, rate: Some(rate) },
                "learning for 74 s: 3 refusals so far, by which the PTU drains about \
                 18,683 weighted tokens/s",
            ),
            (
                Evidence::Measured { rate },
                "measured for 74 s: the PTU drains 18,683 weighted tokens/s",
            ),
            (
                Evidence::Shared { rate: 999.6, lost: 0.372 },
                "shared for 74 s: others took 37 % of the last openings, and leave \
                 1,000 weighted tokens/s",
            ),
            (
                Evidence::DoubtedHint { hint: 12.0, expected: 0.1 },
                "doubting for 74 s: a hint of 12 s where 100 ms was expected",
            ),
            (
                Evidence::ConstantHint { hint: 5.0 },
                "doubting for 74 s: every refusal has the same hint of 5.0 s, so it is ignored",
            ),
            (
                Evidence::Outage { dry: 7.2, refusals: 14 },
                "outage for 74 s: nothing was admitted for 7.2 s, and 14 refusals in a row",
            ),
        ] {
            assert_eq!(said(evidence), expected);
        }
    }

    #[test]
    fn rates_have_their_thousands_apart() {
        for (rate, expected) in
            [(0.4, "0"), (12.0, "12"), (999.4, "999"), (1_234_567.0, "1,234,567")]
        {
            assert_eq!(Rate(rate).to_string(), format!("{expected} weighted tokens/s"));
        }
    }
}
