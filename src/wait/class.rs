//! Classes of requests: how long each may wait, who goes first, and who never spills.

use std::{sync::Arc, time::Duration};

/// A class of requests, selected by a request's [`Priority`](crate::Priority).
///
/// ```
/// use std::time::Duration;
/// use tower_spillover::{SmartFallbackLayer, smart_fallback::Class};
///
/// let layer = SmartFallbackLayer::deployments("gpt-4o-ptu", "gpt-4o")?
///     .class(Class::new("interactive").max_wait(Duration::from_millis(500)))
///     .class(Class::new("batch").rank(1).max_wait(Duration::from_secs(30)).never_spill());
/// # drop(layer);
/// # Ok::<(), tower_spillover::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Class {
    pub(crate) name: Arc<str>,
    pub(crate) rank: u8,
    pub(crate) max_wait: Option<Duration>,
    pub(crate) spills: bool,
}

impl Class {
    /// A class of the most urgent rank, with the layer's `max_wait`, that spills if there is a
    /// fallback.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), rank: 0, max_wait: None, spills: true }
    }

    /// The rank: waiting requests of a lower rank go first. Defaults to 0, the rank of requests
    /// without a class.
    #[must_use]
    pub const fn rank(mut self, rank: u8) -> Self {
        self.rank = rank;
        self
    }

    /// The longest wait of the class, in place of the layer's. A request's own
    /// [`MaxWait`](crate::MaxWait) takes precedence.
    #[must_use]
    pub const fn max_wait(mut self, max_wait: Duration) -> Self {
        self.max_wait = Some(max_wait);
        self
    }

    /// Keeps the class from spilling. When its time is up, a request is sent to the primary once
    /// more, and a refusal is returned to the caller with its hint. No effect in a
    /// [`WaitLayer`](crate::WaitLayer), which has no fallback.
    #[must_use]
    pub const fn never_spill(mut self) -> Self {
        self.spills = false;
        self
    }
}
