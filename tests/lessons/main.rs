//! The mistakes that others made with refusals: a test for each, by its number.

mod answers;
mod delays;
mod memory;
mod queues;
mod requests;
mod scene;
mod streams;
mod waits;

use spillover_testing::{azure, leaf, protocol, raw, stack};

/// Both kinds of time: paused for what needs no socket, real for the rest.
mod clock {
    pub(crate) use spillover_testing::{
        paused::{ms, now, pass, timed},
        real::soon,
    };
}
