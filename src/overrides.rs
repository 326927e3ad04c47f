//! Request extensions that change the limits of one request.

use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

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

/// The [class](crate::smart_fallback::Class) of a request, by its name. Requests without one, or with a name
/// that no class of the layer has, get the layer's own settings.
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
