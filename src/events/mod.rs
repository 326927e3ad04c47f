//! What layers report while a request is under way: events, and where they go.

#[cfg(feature = "metrics")]
mod metrics;
#[cfg(feature = "tracing")]
mod span;
#[cfg(feature = "tracing")]
mod tracing;

use std::{fmt, sync::Arc, time::Duration};

use http::StatusCode;

#[cfg(feature = "metrics")]
pub use self::metrics::MetricsSink;
#[cfg(feature = "tracing")]
pub use self::{
    span::{RequestSpan, RequestSpanFuture, RequestSpanLayer},
    tracing::TracingSink,
};
use crate::{
    Served,
    served::{Attempt, Why},
};

/// Takes the events of layers. Set it with `events` of a
/// [`SmartFallbackLayer`](crate::SmartFallbackLayer), a [`RegionRotateLayer`](crate::RegionRotateLayer), a
/// [`WaitLayer`](crate::WaitLayer) and a [`FirstTokenLayer`](crate::FirstTokenLayer); by default they
/// report nothing, and pay a branch for it.
///
/// It is called in the middle of a request, by the task that polls it, so it must not block. An `Arc` of a
/// sink is one, and so is a pair of sinks.
///
/// With the feature `tracing` there is `TracingSink`, with the feature `metrics` `MetricsSink`.
///
/// ```
/// use std::sync::Arc;
/// use tower_spillover::{SmartFallbackLayer, events::{Event, EventSink, Source}};
///
/// /// Prints why requests spill.
/// struct Spills;
///
/// impl EventSink for Spills {
///     fn on_event(&self, source: Source, event: &Event<'_>) {
///         if let Event::Spills(Some(why)) = event {
///             println!("{}: {why}", source.label());
///         }
///     }
/// }
///
/// let layer = SmartFallbackLayer::deployments("gpt-4o-ptu", "gpt-4o")?.events(Spills);
/// # drop(layer);
/// # Ok::<(), tower_spillover::ConfigError>(())
/// ```
pub trait EventSink: Send + Sync + 'static {
    /// This `event` happened to a request in a layer of this kind.
    fn on_event(&self, source: Source, event: &Event<'_>);
}

/// What happened to a request.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// An attempt came to an end: answered, refused, or failed. A tier or service that reports its own
    /// attempts, being of this crate, is not reported again.
    Attempted(&'a Attempt),
    /// A backend refused, and gets none of the requests that this is about for such a time.
    Closed {
        /// Its name.
        backend: &'a str,
        /// How long it is left alone.
        time: Duration,
    },
    /// The request begins to wait.
    Waits(Why),
    /// It is sent to the fallback.
    Spills(Option<Why>),
    /// It is sent a second time, since its first token is late.
    SentTwice,
    /// The head of an answer, or an error, goes to the caller. The body follows.
    Finished {
        /// What was done for it.
        served: &'a Served,
        /// The answer's status; `None` for an error.
        status: Option<StatusCode>,
    },
    /// Its caller gave it up before that: the future was dropped. Of a request that was sent twice, one of
    /// the sendings may have been.
    Cancelled {
        /// What had been done for it. An attempt that was under way is not among the attempts.
        served: &'a Served,
    },
}

/// The kind of layer that reports an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// A [`SmartFallbackLayer`](crate::SmartFallbackLayer).
    SmartFallback,
    /// A [`RegionRotateLayer`](crate::RegionRotateLayer).
    RegionRotate,
    /// A [`WaitLayer`](crate::WaitLayer).
    Wait,
    /// A [`FirstTokenLayer`](crate::FirstTokenLayer).
    FirstToken,
}

impl Source {
    /// The name, of a closed set: fit to be a label of a metric.
    pub const fn label(self) -> &'static str {
        match self {
            Self::SmartFallback => "smart_fallback",
            Self::RegionRotate => "region_rotate",
            Self::Wait => "wait",
            Self::FirstToken => "first_token",
        }
    }
}

impl Event<'_> {
    /// The name, of a closed set: fit to be a label of a metric.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Attempted(_) => "attempted",
            Self::Closed { .. } => "closed",
            Self::Waits(_) => "waits",
            Self::Spills(_) => "spills",
            Self::SentTwice => "sent_twice",
            Self::Finished { .. } => "finished",
            Self::Cancelled { .. } => "cancelled",
        }
    }
}

impl<T: EventSink + ?Sized> EventSink for Arc<T> {
    fn on_event(&self, source: Source, event: &Event<'_>) {
        (**self).on_event(source, event);
    }
}

impl<A: EventSink, B: EventSink> EventSink for (A, B) {
    fn on_event(&self, source: Source, event: &Event<'_>) {
        self.0.on_event(source, event);
        self.1.on_event(source, event);
    }
}

/// Where a layer's events go, if anywhere.
#[derive(Clone, Default)]
pub(crate) struct Events(Option<Arc<dyn EventSink>>);

impl Events {
    pub(crate) fn to(sink: impl EventSink) -> Self {
        Self(Some(Arc::new(sink)))
    }

    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    #[inline]
    pub(crate) fn emit(&self, source: Source, event: Event<'_>) {
        if let Some(sink) = &self.0 {
            sink.on_event(source, &event);
        }
    }

    /// A request with this account, if it has one, was given up.
    #[cold]
    pub(crate) fn emit_cancelled(&self, source: Source, served: Option<&Served>) {
        match served {
            Some(served) => self.emit(source, Event::Cancelled { served }),
            None => self.emit(source, Event::Cancelled { served: &Served::new() }),
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_on() { "on" } else { "off" })
    }
}
