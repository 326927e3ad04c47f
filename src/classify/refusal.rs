//! Why a backend refused, where only the body of its answer says so.

use http::Response;

use super::Hint;

/// Why a backend refused: a response extension.
///
/// The head of a refusal tells how long to wait, not always why, and some refusals do not look
/// like one at all. A layer that reads the body leaves what it found here; the others steer by it,
/// and without it go by the head alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Refusal {
    reason: Reason,
    hint: Hint,
}

/// What a backend refuses for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// A rate limit, of requests or tokens: it passes by itself after the hint.
    Rate,
    /// The service has no capacity for this model in this region at the moment (`no_capacity`):
    /// another region helps, a larger quota does not.
    Capacity,
    /// The quota is used up or the account is blocked (`insufficient_quota` and its kin): no wait
    /// that a request can afford helps, another backend may.
    Quota,
    /// The request is longer than this deployment takes, though others may take it. It is no fault
    /// of the backend, which goes on serving.
    ContextLength,
}

/// Whom a refusal concerns, beside the request that met it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// Nobody else.
    Request,
    /// Every backend that shares the quota: one subscription, region and model.
    Quota,
    /// The model in its region.
    Region,
}

impl Refusal {
    /// A refusal for `reason` that asks to wait for `hint`.
    pub const fn new(reason: Reason, hint: Hint) -> Self {
        Self { reason, hint }
    }

    /// What a layer inside found out about `response`. Looked up once the head says that it refuses.
    pub(crate) fn of<B>(response: &Response<B>) -> Option<Self> {
        response.extensions().get().copied()
    }

    /// Why.
    pub const fn reason(self) -> Reason {
        self.reason
    }

    /// How long the backend asked to wait, by its headers or, where they are silent, its message.
    pub const fn hint(self) -> Hint {
        self.hint
    }

    /// Whom it concerns; the reason says so.
    pub const fn scope(self) -> Scope {
        match self.reason {
            Reason::Rate | Reason::Quota => Scope::Quota,
            Reason::Capacity => Scope::Region,
            Reason::ContextLength => Scope::Request,
        }
    }
}
