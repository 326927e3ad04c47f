//! What a request costs a PTU, estimated before and corrected after.
//!
//! A PTU counts *weighted tokens*. On arrival a request takes its prompt plus the most that it may
//! generate, with one output token counting as several input tokens; when it is done, the service
//! corrects that to what was generated (Azure page "Provisioned throughput"). [`EstimateCost`] does
//! the same on this side. [`TokenWeights`] is the default, and reads the bodies of chat completions,
//! responses, completions and embeddings.
//!
//! ```
//! use http::{HeaderMap, Uri};
//! use tower_spillover::gate::cost::{EstimateCost, Head, TokenWeights, Usage};
//!
//! let weights = TokenWeights::new().model("gpt-41-ptu", TokenWeights::new().output(4.0));
//!
//! let uri = Uri::from_static("/openai/deployments/gpt-4o-ptu/chat/completions");
//! let headers = HeaderMap::new();
//! let body = br#"{"messages":[{"role":"user","content":"Name four seas."}],"max_tokens":100}"#;
//! let estimate = weights.estimate(&Head::new(&uri, &headers), Some(body));
//! assert!((300.0..310.0).contains(&estimate), "3 x 100, and the few tokens of the prompt");
//!
//! // The answer said: `"usage":{"prompt_tokens":11,"completion_tokens":14}`.
//! assert_eq!(weights.actual(&Usage::new(11, 0, 14)), 53.0);
//! ```

mod weights;

use std::{fmt, sync::Arc};

use http::{HeaderMap, Uri};

pub use self::weights::TokenWeights;
use crate::azure::fields::BodyFields;
#[doc(inline)]
pub use crate::azure::{Usage, UsageScan};

/// What a request takes out of a PTU's capacity, in weighted tokens.
///
/// Any unit works if both methods use the same, because the drain rate is learned in it. Negative and
/// non-finite costs count as zero.
pub trait EstimateCost: fmt::Debug + Send + Sync + 'static {
    /// The estimate before the answer is known. `content` is the body if it is in memory.
    fn estimate(&self, head: &Head<'_>, content: Option<&[u8]>) -> f64;

    /// The actual cost.
    fn actual(&self, usage: &Usage) -> f64;

    /// The estimator of one request, if estimators differ between requests, so that estimate and
    /// actual cost use the same weights. The default, `None`, means `self`.
    fn for_request(
        &self,
        head: &Head<'_>,
        content: Option<&[u8]>,
    ) -> Option<Arc<dyn EstimateCost>> {
        let _ = (head, content);
        None
    }

    /// The estimate and the estimator of one request together, so that an implementation can read the
    /// body once instead of twice.
    #[doc(hidden)]
    fn weigh(
        &self,
        head: &Head<'_>,
        content: Option<&[u8]>,
    ) -> (f64, Option<Arc<dyn EstimateCost>>) {
        match self.for_request(head, content) {
            Some(own) => (own.estimate(head, content), Some(own)),
            None => (self.estimate(head, content), None),
        }
    }
}

/// The head of a request whose cost is estimated.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Head<'a> {
    /// The URI as the caller gave it.
    pub uri: &'a Uri,
    /// The headers, including the caller's credentials.
    pub headers: &'a HeaderMap,
    /// What a scan of the body found, if there was one.
    fields: Option<&'a BodyFields>,
}

impl<'a> Head<'a> {
    /// A head of these parts.
    pub const fn new(uri: &'a Uri, headers: &'a HeaderMap) -> Self {
        Self { uri, headers, fields: None }
    }

    /// Adds the fields found by a scan of the body.
    pub(crate) const fn scanned(mut self, fields: Option<&'a BodyFields>) -> Self {
        self.fields = fields;
        self
    }
}

/// Shows the path alone, because headers and query may contain a key.
impl fmt::Debug for Head<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Head").field("path", &self.uri.path()).finish_non_exhaustive()
    }
}
