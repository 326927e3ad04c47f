//! A gate whose PTU is used by several processes: they share its core in their fleet's store.

mod attempt;
#[cfg(test)]
mod constants;
mod member;
mod request;

use std::time::Duration;

pub(super) use self::{
    attempt::{FleetAttempt, FleetRefusal},
    member::FleetMember,
    request::{FleetAdmission, FleetRequest},
};
use super::core::nanos;

/// Whole microseconds, which no float of the store rounds; at most a day.
fn micros(duration: Duration) -> f64 {
    (nanos(duration) / 1_000).min(MAX_MICROS) as f64
}

const MAX_MICROS: i64 = 86_400_000_000;

#[cfg(test)]
mod tests;
