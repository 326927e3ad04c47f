//! How the PTU's refusals state the time to wait.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Response, header};

use super::{answer::without_hints, draws::share};

/// How the PTU's refusals state the time to wait.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Hints {
    /// The true wait, in milliseconds and in whole seconds.
    #[default]
    Exact,
    /// The true wait in whole seconds only, rounded up.
    WholeSeconds,
    /// No hint.
    Missing,
    /// The true wait or no hint, each in about half of the refusals.
    HalfMissing,
    /// Always this wait.
    Constant(Duration),
    /// The true wait, except for a share of refusals whose hint is drawn uniformly between two
    /// bounds.
    False {
        /// The share of false hints, 0 to 1.
        share: f64,
        /// The shortest false hint.
        from: Duration,
        /// The longest false hint.
        to: Duration,
    },
}

impl Hints {
    /// Rewrites the refusal as this service sends it; `seed` and `parts` fix the draws.
    pub(super) fn apply<B>(
        self,
        mut refusal: Response<B>,
        seed: u64,
        [request, attempt]: [u64; 2],
    ) -> Response<B> {
        match self {
            Self::Exact => {}
            Self::Missing => return without_hints(refusal),
            Self::HalfMissing => {
                if share(seed, &[IS_MISSING, request, attempt]) < 0.5 {
                    return without_hints(refusal);
                }
            }
            Self::WholeSeconds => {
                refusal.headers_mut().remove(RETRY_AFTER_MS);
            }
            Self::Constant(hint) => say(&mut refusal, hint),
            Self::False { share: most, from, to } => {
                if share(seed, &[IS_FALSE, request, attempt]) < most {
                    let at = share(seed, &[HOW_FALSE, request, attempt]);
                    say(&mut refusal, from + to.saturating_sub(from).mul_f64(at));
                }
            }
        }
        refusal
    }
}

/// Writes `hint` into the refusal, in milliseconds and in seconds.
pub(super) fn say<B>(refusal: &mut Response<B>, hint: Duration) {
    let millis = u64::try_from(hint.as_millis()).unwrap_or(u64::MAX);
    let headers = refusal.headers_mut();
    headers.insert(RETRY_AFTER_MS, HeaderValue::from(millis));
    headers.insert(header::RETRY_AFTER, HeaderValue::from(millis.div_ceil(1_000)));
}

/// The hint of a refusal, as a client reads it.
pub(super) fn read<B>(refusal: &Response<B>) -> Option<Duration> {
    let number = |name: &HeaderName| refusal.headers().get(name)?.to_str().ok()?.parse().ok();
    let millis = number(&RETRY_AFTER_MS).map(Duration::from_millis);
    millis.or_else(|| number(&header::RETRY_AFTER).map(Duration::from_secs))
}

const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const IS_FALSE: u64 = 40;
const HOW_FALSE: u64 = 41;
const IS_MISSING: u64 = 42;

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal() -> Response<()> {
        let mut refusal = Response::new(());
        say(&mut refusal, Duration::from_millis(1_234));
        refusal
    }

    #[test]
    fn a_refusal_says_the_truth_or_what_it_is_to_say() {
        let told = |hints: Hints| read(&hints.apply(refusal(), 1, [7, 0]));
        let ms = Duration::from_millis;
        assert_eq!(told(Hints::Exact), Some(ms(1_234)));
        assert_eq!(told(Hints::WholeSeconds), Some(ms(2_000)));
        assert_eq!(told(Hints::Missing), None);
        assert_eq!(told(Hints::Constant(ms(43))), Some(ms(43)));
        assert_eq!(told(Hints::Constant(Duration::ZERO)), Some(ms(0)));
    }

    #[test]
    fn half_of_the_hints_are_missing() {
        let told = |request| read(&Hints::HalfMissing.apply(refusal(), 1, [request, 0]));
        let missing = (0..10_000).filter(|request| told(*request).is_none()).count();
        assert!((4_800..5_200).contains(&missing), "{missing} of 10,000");
    }

    #[test]
    fn a_share_of_hints_is_false_and_the_same_ones_for_a_seed() {
        let (from, to) = (Duration::from_secs(5), Duration::from_secs(17));
        let hints = Hints::False { share: 0.08, from, to };
        let told = |seed| {
            let one = |request| read(&hints.apply(refusal(), seed, [request, 0]));
            (0..10_000).filter_map(one).filter(|hint| *hint >= from).collect::<Vec<_>>()
        };
        let lies = told(1);
        assert!((700..900).contains(&lies.len()), "{} of 10,000", lies.len());
        assert!(lies.iter().all(|hint| *hint <= to));
        assert_eq!(lies, told(1));
        assert_ne!(lies, told(2));
    }
}
