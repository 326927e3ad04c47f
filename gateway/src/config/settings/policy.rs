//! What a model does about refusals, failures, and requests that belong to one resource.

use std::time::Duration;

use http::StatusCode;
use tower_spillover::{first_token::Limit, sticky::CacheAffinity};

/// Settings of the shared memory of ids, which are not per model. The defaults are the library's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StickySettings {
    /// Defaults to 65,536 ids.
    pub capacity: usize,
    /// Of an id that is not used. Defaults to 30 days.
    pub longest_age: Duration,
    /// Whether ids are served of which no owner is known. Defaults to yes where all clients share what they
    /// store, and to no otherwise: such an id may be another client's.
    pub serves_unknown: Option<bool>,
}

/// What moves a model's requests besides refusals, and what keeps them.
#[derive(Clone, Debug)]
pub struct Steering {
    pub failures: Failures,
    /// Whether a request that is too long for the PTU spills. Defaults to yes.
    pub spill_long_context: bool,
    /// Whether it moves on within a tier, too. Defaults to no: the backends of a tier are one model.
    pub rotate_long_context: bool,
    /// Whether a flex request that is refused everywhere goes on in the default service tier, where
    /// what is used is paid for by the token. Defaults to no: it costs twice as much.
    pub flex_as_default: bool,
    /// The most attempts for one request, over both tiers. Defaults to no limit but that each
    /// backend is asked once.
    pub max_attempts: Option<u32>,
    /// Defaults to none.
    pub cache_affinity: Option<CacheAffinity>,
    pub sticky: Stickiness,
    /// `None`: answers are passed on unread. Defaults to reading them.
    pub inspect: Option<Inspection>,
    /// Defaults to none: a late answer is waited for.
    pub first_token: Option<FirstToken>,
}

/// When the first token of an answer is late, and what happens then.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FirstToken {
    /// Of requests whose class has none of its own.
    pub limit: Limit,
    /// Of second attempts, of all classes together. The library's own where there is none.
    pub budget: Option<MoveBudget>,
}

/// Whether requests are kept with the resource that holds what they refer to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stickiness {
    Off,
    /// The default: "not found" is what another resource would say.
    On {
        /// The home of every client, where requests go whose ids are not known, too. Without, each client
        /// has one by its name.
        default_backend: Option<String>,
    },
}

/// Limits of what is read of an answer; the library's own where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    pub body_time: Option<Duration>,
    pub preamble_time: Option<Duration>,
    pub preamble_limit: Option<usize>,
}

/// The failures after which the next backend is asked, or the other tier.
#[derive(Clone, Debug, PartialEq)]
pub struct Failures {
    /// Defaults to `Connect`, 500, 502 and 503: what cannot have reached a model, and what Azure's own
    /// spillover takes upon itself. After `Timeout` and `Reset` a model may be at work that is billed.
    pub on: Vec<Failure>,
    /// `None`: as many as fail.
    pub budget: Option<MoveBudget>,
}

impl Failures {
    /// The default, as the library's `MoveOn::new`.
    pub const USUAL: [Failure; 4] = [
        Failure::Connect,
        Failure::Status(StatusCode::INTERNAL_SERVER_ERROR),
        Failure::Status(StatusCode::BAD_GATEWAY),
        Failure::Status(StatusCode::SERVICE_UNAVAILABLE),
    ];
}

/// What can go wrong with an attempt, other than that it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection: nothing was sent.
    Connect,
    /// The connection broke before any byte of an answer.
    Reset,
    /// No head of an answer in time.
    Timeout,
    /// An answer with this status, which has no meaning of its own.
    Status(StatusCode),
}

/// How many requests may move on after failures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MoveBudget {
    /// Defaults to 500.
    pub moves: u32,
    /// What each success adds, up to `moves`. Defaults to 0.2.
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
