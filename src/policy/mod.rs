//! Turns an outcome and the time into the next step. Pure: no clock, no randomness, no IO.
//!
//! Durations and draws come in as arguments, decisions go out as values, and the [services](crate)
//! obey them. So a decision can be tested at nanosecond resolution, replayed, and benchmarked alone.

mod assumed_wait;
mod budget;
mod cooldown_policy;
mod error_kind;
mod fallback;
mod move_on;
mod status_set;

pub(crate) use self::{assumed_wait::assumed_wait, error_kind::AfterClose};
pub use self::{
    budget::RetryBudget,
    cooldown_policy::CooldownPolicy,
    error_kind::{ClassifyError, ErrorKind, ReturnErrors, SentAgain},
    fallback::{FallbackFacts, FallbackPolicy, Next, WaitThenSpill},
    move_on::MoveOn,
};
