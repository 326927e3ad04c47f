//! Request extensions that change the limits of one request.

use std::time::{Duration, Instant};

/// Replaces `max_wait` of [`SmartFallbackLayer`] for one request.
///
/// ```
/// use std::time::Duration;
/// use tower_spillover::MaxWait;
///
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(MaxWait(Duration::from_millis(500)));
/// # assert_eq!(request.extensions().get(), Some(&MaxWait(Duration::from_millis(500))));
/// ```
///
/// [`SmartFallbackLayer`]: crate::SmartFallbackLayer
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxWait(pub Duration);

/// The instant after which nobody waits for the answer any more.
///
/// No layer of this crate starts a wait that would end after it. An attempt under way is not cut
/// off: that is a timeout's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(pub Instant);

/// When the request reached the outermost tier, so that nested tiers share one `max_wait`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival(pub(crate) Instant);
