//! The pure core of the gate: facts and the time come in, decisions go out.

mod admission;
mod bucket;
mod bucket_depth;
mod capacity_probe;
mod queue;
mod rate_estimator;
mod standing_queue;
mod time;

#[cfg(test)]
mod model;

pub(super) use self::{
    admission::{Core, Decision},
    bucket::TrackedAttempt,
    queue::QueueKey,
    time::{Nanos, nanos, seconds},
};
