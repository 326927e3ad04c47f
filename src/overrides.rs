//! Request extensions that change the limits of one request.

use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

/// Replaces the `max_wait` of [`SmartFallbackLayer`] for one request.
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

/// The deadline after which the answer is no longer needed.
///
/// No layer of this crate starts a wait that would end after it. An attempt in flight is not cut off:
/// use a timeout for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(pub Instant);

/// The [class](crate::smart_fallback::Class) of a request, by name. Requests without one, or with the
/// name of no class of the layer, get the layer's own settings.
///
/// ```
/// use tower_spillover::Priority;
///
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(Priority::from("batch"));
/// # assert_eq!(request.extensions().get(), Some(&Priority::from("batch")));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Priority(Cow<'static, str>);

impl Priority {
    /// The name of the class.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: Into<Cow<'static, str>>> From<T> for Priority {
    fn from(name: T) -> Self {
        Self(name.into())
    }
}

/// When the request reached the outermost tier, so that nested tiers share one `max_wait`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival(pub(crate) Instant);
