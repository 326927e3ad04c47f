//! A model's policy for refusals, failures, and requests that belong to one resource.

use std::time::Duration;

use http::StatusCode;
use tower_spillover::{first_token::Limit, sticky::CacheAffinity};

/// Settings of the shared memory of ids, which are not per model. The defaults are the library's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StickySettings {
    /// Defaults to 65,536 ids.
    pub capacity: usize,
    /// How long an unused id is remembered. Defaults to 30 days.
    pub longest_age: Duration,
    /// Whether ids without a known owner are served. Defaults to yes if all clients share stored
    /// objects, and to no otherwise: such an id may belong to another client.
    pub serves_unknown: Option<bool>,
}

/// What moves a model's requests apart from refusals, and what pins them.
#[derive(Clone, Debug)]
pub struct Steering {
    pub failures: Failures,
    /// Whether a request that is too long for the PTU spills. Defaults to yes.
    pub spill_long_context: bool,
    /// Whether it also moves on within a tier. Defaults to no: the backends of a tier serve one
    /// model.
    pub rotate_long_context: bool,
    /// Whether a flex request that every backend refuses continues in the default service tier,
    /// which is paid per token. Defaults to no: it costs twice as much.
    pub flex_as_default: bool,
    /// The maximum attempts for one request, over both tiers. Unlimited by default, except that
    /// each backend is tried once.
    pub max_attempts: Option<u32>,
    /// Defaults to none.
    pub cache_affinity: Option<CacheAffinity>,
    pub sticky: Stickiness,
    /// `None`: answers are passed on without inspection. Inspected by default.
    pub inspect: Option<Inspection>,
    /// No limit by default: waits for a late answer.
    pub first_token: Option<FirstToken>,
}

/// When the first token of an answer is late, and what happens then.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FirstToken {
    /// For requests whose class has no limit of its own.
    pub limit: Limit,
    /// For second attempts of all classes together. `None`: the library's default.
    pub budget: Option<MoveBudget>,
}

/// Whether requests are pinned to the resource that stores what they refer to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stickiness {
    Off,
    /// The default: another resource would answer "not found".
    On {
        /// The home of all clients, and the target of requests with unknown ids. `None`: each
        /// client has a home that its name determines.
        default_backend: Option<String>,
    },
}

/// Limits on inspecting an answer; `None`: the library's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    pub body_time: Option<Duration>,
    pub preamble_time: Option<Duration>,
    pub preamble_limit: Option<usize>,
}

/// The failures after which a request moves to the next backend or the other tier.
#[derive(Clone, Debug, PartialEq)]
pub struct Failures {
    /// Defaults to `Connect`, 500, 502 and 503: those that cannot have reached a model, and those
    /// that Azure's native spillover covers. After `Timeout` and `Reset` a model may still be
    /// running, and is billed.
    pub on: Vec<Failure>,
    /// `None`: unlimited.
    pub budget: Option<MoveBudget>,
}

impl Failures {
    /// The default, the same as the library's `MoveOn::new`.
    pub const USUAL: [Failure; 4] = [
        Failure::Connect,
        Failure::Status(StatusCode::INTERNAL_SERVER_ERROR),
        Failure::Status(StatusCode::BAD_GATEWAY),
        Failure::Status(StatusCode::SERVICE_UNAVAILABLE),
    ];
}

/// How an attempt can fail, other than by a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection: nothing was sent.
    Connect,
    /// The connection broke before any byte of an answer.
    Reset,
    /// The head of an answer did not arrive in time.
    Timeout,
    /// An answer with this status, which is not a refusal.
    Status(StatusCode),
}

/// Limits how many requests may move on after failures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MoveBudget {
    /// Defaults to 500.
    pub moves: u32,
    /// What each success adds to the budget, up to `moves`. Defaults to 0.2.
    pub per_success: f64,
}

impl Default for StickySettings {
    fn default() -> Self {
        Self {
            capacity: 1 << 16,
            longest_age: Duration::from_secs(30 * 24 * 3_600),
            serves_unknown: None,
        }
    }
}

impl Default for Steering {
    fn default() -> Self {
        Self {
            failures: Failures::default(),
            spill_long_context: true,
            rotate_long_context: false,
            flex_as_default: false,
            max_attempts: None,
            cache_affinity: None,
            sticky: Stickiness::default(),
            inspect: Some(Inspection::default()),
            first_token: None,
        }
    }
}

impl Default for Stickiness {
    fn default() -> Self {
        Self::On { default_backend: None }
    }
}

impl Default for Failures {
    fn default() -> Self {
        Self { on: Self::USUAL.to_vec(), budget: Some(MoveBudget::default()) }
    }
}

impl Default for MoveBudget {
    fn default() -> Self {
        Self { moves: 500, per_success: 0.2 }
    }
}
