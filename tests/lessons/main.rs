//! The mistakes that others made with refusals: a test for each, by its number.

#[path = "../sockets/azure.rs"]
#[allow(dead_code, reason = "shared with the tests over sockets")]
mod azure;
#[path = "../contract/leaf.rs"]
#[allow(dead_code, reason = "shared with the tests of the contract")]
mod leaf;
#[path = "../contract/clock.rs"]
#[allow(dead_code, reason = "shared with the tests of the contract")]
mod paused;
#[path = "../sockets/protocol.rs"]
#[allow(dead_code, reason = "shared with the tests over sockets")]
mod protocol;
#[path = "../sockets/raw.rs"]
mod raw;
#[path = "../sockets/clock.rs"]
#[allow(dead_code, reason = "shared with the tests over sockets")]
mod real;
#[path = "../corpus/sample.rs"]
#[allow(dead_code, reason = "shared with the tests over sockets")]
mod sample;
#[path = "../sockets/stack.rs"]
#[allow(dead_code, reason = "shared with the tests over sockets")]
mod stack;

mod answers;
mod delays;
mod memory;
mod queues;
mod requests;
mod scene;
mod streams;
mod waits;

/// Both kinds of time: paused for what needs no socket, real for the rest.
mod clock {
    pub(crate) use crate::{
        paused::{ms, now, pass, timed},
        real::{Stopwatch, soon},
    };
}
