//! Turns an outcome and the time into what to do next. Pure: no clock, no randomness, no IO.
//!
//! Nothing in this module reads a clock or draws a number: durations and draws come in as
//! arguments, decisions go out as values, and the [services](crate) obey them. So a decision can
//! be tested at the nanosecond, replayed, and measured alone.

mod backoff;
mod budget;
mod errors;
mod failures;
mod fallback;
mod rests;

#[cfg(feature = "retry")]
pub(crate) use self::backoff::spread;
pub(crate) use self::fallback::assumed_wait;
pub use self::{
    backoff::Backoff,
    budget::RetryBudget,
    errors::{ErrorFn, MoveOnError, ReturnErrors},
    failures::Failures,
    fallback::{Facts, Next, Policy, WaitThenSpill},
    rests::Rests,
};
