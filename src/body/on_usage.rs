//! The subscribers to the usage of an answer: callers, and a gate.

use std::{fmt, sync::Arc};

use http::Extensions;

use crate::azure::Usage;

/// Receives the usage of an answer.
pub trait UsageSink: Send + Sync + 'static {
    /// Called once by the pool that sent the request: when the body of its answer ends or is dropped,
    /// with the usage if it was seen by then; with `None` if there will be no such body.
    fn ended(&self, usage: Option<Usage>);
}

/// A request extension: sinks for the `usage` of the answer, which
/// [`RegionRotate`](crate::region_rotate::RegionRotate) finds as the body passes.
///
/// One scan serves all sinks and the gate; without any there is no scan. The outermost pool removes
/// the extension. If a request goes through a pool more than once, as through two tiers, each pool
/// calls the sinks; the usage of the answer is then in the last call that has one.
///
/// ```
/// use std::sync::{Arc, Mutex};
///
/// use http::{Request, Response};
/// use http_body_util::{BodyExt, Full};
/// use tower::{ServiceBuilder, ServiceExt};
/// use tower_spillover::{
///     Backend, BackendPool, RegionRotateLayer,
///     body::{OnUsage, UsageSink},
///     gate::cost::Usage,
/// };
///
/// #[derive(Default)]
/// struct Total(Mutex<u64>);
///
/// impl UsageSink for Total {
///     fn ended(&self, usage: Option<Usage>) {
///         if let Some(usage) = usage {
///             *self.0.lock().unwrap() += usage.prompt + usage.completion;
///         }
///     }
/// }
///
/// # use bytes::Bytes;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let client = tower::service_fn(|_: Request<Full<Bytes>>| async {
/// #     let body = r#"{"usage":{"prompt_tokens":11,"completion_tokens":14}}"#;
/// #     Response::builder().header("content-type", "application/json").body(Full::<Bytes>::from(body))
/// # });
/// let pool = BackendPool::new([Backend::new("east", "https://east.openai.azure.com")?.api_key("k")])?;
/// let azure = ServiceBuilder::new().layer(RegionRotateLayer::new(pool)).service(client);
///
/// let total = Arc::new(Total::default());
/// let mut request = Request::post("/openai/v1/chat/completions").body(Full::<Bytes>::default())?;
/// OnUsage::subscribe(request.extensions_mut(), Arc::clone(&total));
/// let response = azure.oneshot(request).await?;
/// response.into_body().collect().await?;
/// assert_eq!(*total.0.lock().unwrap(), 25);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct OnUsage {
    sink: Arc<dyn UsageSink>,
    others: Option<Box<Self>>,
}

impl OnUsage {
    /// Adds `sink` to the subscribers in a request's `extensions`.
    pub fn subscribe(extensions: &mut Extensions, sink: Arc<impl UsageSink>) {
        let others = extensions.remove().map(Box::new);
        extensions.insert(Self { sink, others });
    }

    fn ended(&self, usage: Option<Usage>) {
        self.sink.ended(usage);
        if let Some(others) = &self.others {
            others.ended(usage);
        }
    }
}

impl fmt::Debug for OnUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnUsage").finish_non_exhaustive()
    }
}

/// A request extension: a gate let the request go, and its sink, if any, receives the cost of the
/// answer. If no backend is open, a pool then tries the one that reopens first, because the gate's
/// estimate is better than the pool's.
#[derive(Clone)]
pub(crate) struct Admitted(pub(crate) Option<Arc<dyn UsageSink>>);

/// Every subscriber to a request's answer.
pub(crate) struct UsageSinks {
    gate: Option<Arc<dyn UsageSink>>,
    subscribed: Option<OnUsage>,
}

impl UsageSinks {
    /// Removes them from the request's `extensions`, if there are any.
    pub(crate) fn take(extensions: &mut Extensions) -> Option<Self> {
        let gate = extensions.remove().and_then(|Admitted(sink)| sink);
        let subscribed = extensions.remove();
        (gate.is_some() || subscribed.is_some()).then_some(Self { gate, subscribed })
    }

    pub(super) fn ended(&self, usage: Option<Usage>) {
        if let Some(sink) = &self.gate {
            sink.ended(usage);
        }
        if let Some(subscribed) = &self.subscribed {
            subscribed.ended(usage);
        }
    }

    /// Calls the gate without a usage and removes it. Returns whether other sinks remain.
    pub(super) fn dismiss_gate(&mut self) -> bool {
        let has_others = self.subscribed.is_some();
        if has_others && let Some(sink) = self.gate.take() {
            sink.ended(None);
        }
        has_others
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Records every call.
    #[derive(Default)]
    pub(crate) struct RecordingSink(Mutex<Vec<Option<Usage>>>);

    impl RecordingSink {
        pub(crate) fn observe(self: &Arc<Self>) -> Admitted {
            Admitted(Some(Arc::clone(self) as Arc<dyn UsageSink>))
        }

        pub(crate) fn all(&self) -> Vec<Option<Usage>> {
            self.0.lock().unwrap().clone()
        }
    }

    impl UsageSink for RecordingSink {
        fn ended(&self, usage: Option<Usage>) {
            self.0.lock().unwrap().push(usage);
        }
    }
}
