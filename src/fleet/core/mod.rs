//! The shared core of a fleet's gate: steps and the time go in, answers come out.
//!
//! While a PTU refuses, all processes of a fleet decide by one core in their store. It follows the
//! rules of the gate of one process (`gate/core`), and `redis/gate.lua` is the same core as a script:
//! statement by statement, in `f64` microseconds, so that a test can demand equal answers. A change
//! of a rule changes both.
//!
//! # What differs from the gate of one process
//!
//! - **Appointments.** A store cannot wake a request. Each waiting request learns when to look
//!   again: after [`APPOINTMENT_SHARE`] of the time until it is expected to be due. One that is due
//!   within [`GRANT_AHEAD`] gets its permission at once, to be sent then, so that the store's
//!   network delays no dispatch.
//! - **Whose turn it is.** A request whose expected turn has come may go, although one ahead of it
//!   has not looked yet: a PTU that idles is worse than a request overtaken by one place.
//! - **Costs ahead.** A waiting request counts those ahead of it, at the mean cost. Only a new
//!   request gets the exact sum of its rank.
//! - **Checks.** While requests wait, an attempt is made 360 ms after each refusal, whatever its hint.
//!   The gate of one process checks sooner on a large PTU, and soon after a short hint: that would
//!   cost more attempts than a fleet is to make.
//! - **Margin.** A request is sent [`DISPATCH_MARGIN`] later than modelled. One that is late
//!   costs nothing, since the bucket is seconds deep, and one that is early is refused.
//! - **News.** When the PTU turns out to reopen much later than modelled, waiting requests reconsider
//!   when they next look, not all at once.
//! - **Dead processes.** A request at the head that is [`MAX_LATENESS`] late for its appointment is
//!   removed. If its process lives, its next call puts it back at its old place. What attempts in
//!   flight will give back decays, since a process that died never reports their end.
//! - **A store that forgot.** Without state, the queue is deleted too, and the caller's last answer
//!   seeds the rate and the time of the reopening. Orders are times of arrival, so requests that look
//!   again return to their places.
//!
//! # What is left out
//!
//! - **Contention** (`gate/core/contention.rs`): it keeps replicas of one application from asking in
//!   chorus, which this core prevents. Beside other applications, a fleet behaves like a gate that has
//!   not noticed them.
//! - **The limit on attempts of one request** (`gate/core/queue.rs`): attempts are paced by the
//!   bucket either way, the limit only changes whose they are.
//! - **Ranks** above [`MAX_RANK`] count as that rank.

mod bucket;
mod constants;
#[cfg(all(test, feature = "redis"))]
mod differential;
mod queue;
mod state;
mod steps;
#[cfg(test)]
mod tests;
#[cfg(feature = "redis")]
mod wire;

#[cfg(test)]
pub(crate) use self::constants::CONSTANTS;
#[cfg(feature = "redis")]
pub(crate) use self::wire::{layout as gate_layout, script as gate_script};
pub(crate) use self::{
    queue::MAX_RANK,
    steps::{
        Answer, Attempt, Core, Grant, Newcomer, Refusal, Reply, Seed, SpillKind, Step, Ticket,
    },
};
