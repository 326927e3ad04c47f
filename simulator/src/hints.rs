//! What the PTU's refusals say about how long they last.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Response, header};

use super::{answer::without_hints, draws::share};

/// What the PTU's refusals say about how long they last.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Hints {
    /// The truth in milliseconds, and in whole seconds.
    #[default]
    Exact,
    /// The truth in whole seconds alone, rounded up.
    WholeSeconds,
    /// Nothing.
    Missing,
    /// Always the same, whatever the truth.
    Constant(Duration),
    /// The truth, but for a share of refusals that say something else, from the one time to the
    /// other, uniformly.
    False {
        /// The share, 0 to 1.
        share: f64,
        /// The shortest that is said instead.
        from: Duration,
        /// The longest.
        to: Duration,
    },
}

impl Hints {
    /// The refusal as this service sends it, its draws made by `seed` and `parts`.
    pub(super) fn apply<B>(
        self,
        mut refusal: Response<B>,
        seed: u64,
        [request, attempt]: [u64; 2],
    ) -> Response<B> {
        match self {
            Self::Exact => {}
            Self::Missing => return without_hints(refusal),
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

/// Has a refusal say `hint`, in milliseconds and in seconds.
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
