//! Events that layers report about a request, and the sinks that receive them.

#[cfg(feature = "metrics")]
mod metrics;
#[cfg(feature = "tracing")]
mod span;
#[cfg(feature = "tracing")]
mod tracing;

use std::{fmt, sync::Arc, thread, time::Duration};

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

/// Receives the events of layers. Set it with `events` of a
/// [`SmartFallbackLayer`](crate::SmartFallbackLayer), a
/// [`RegionRotateLayer`](crate::RegionRotateLayer), a [`WaitLayer`](crate::WaitLayer) or a
/// [`FirstTokenLayer`](crate::FirstTokenLayer). By default they report nothing, which costs one
/// branch.
///
/// It is called during a request, by the task that polls it, so it must not block. A panic is a
/// panic of that task. An `Arc` of a sink is a sink, and so is a pair of sinks.
///
/// The feature `tracing` adds `TracingSink`, the feature `metrics` adds `MetricsSink`.
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
    /// Called when `event` happens to a request in a layer of this kind.
    fn on_event(&self, source: Source, event: &Event<'_>);
}

/// What happened to a request.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// An attempt ended: answered, refused, or failed. Not reported by a layer whose tier or service
    /// is also of this crate and reports its own attempts.
    Attempted(&'a Attempt),
    /// A backend refused, and gets no request that the refusal applies to for this time.
    Closed {
        /// The name of the backend.
        backend: &'a str,
        /// How long it is closed.
        time: Duration,
    },
    /// The request starts to wait.
    Waits(Why),
    /// It is sent to the fallback.
    Spills(Option<Why>),
    /// It is sent a second time, because its first token is late.
    SentTwice,
    /// The head of an answer, or an error, is returned to the caller. The body follows.
    Finished {
        /// The account of the request.
        served: &'a Served,
        /// The status of the answer; `None` for an error.
        status: Option<StatusCode>,
    },
    /// The caller cancelled it before that: the future was dropped, and not by a panic. For a request
    /// that was sent twice, this may be one of the sendings.
    Cancelled {
        /// The account so far. It does not include an attempt in flight.
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
    /// The name, from a closed set: suitable as a metric label.
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
    /// The name, from a closed set: suitable as a metric label.
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

/// The sink of a layer's events, if any.
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

    /// A request with this account, if it has one, was cancelled.
    #[cold]
    pub(crate) fn emit_cancelled(&self, source: Source, served: Option<&Served>) {
        if thread::panicking() {
            // A second panic, in the sink, would abort the process.
            return;
        }
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
