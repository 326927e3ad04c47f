//! What the tests and benches of this workspace share.
//!
//! The library's unit tests are built with a copy of the library of their own, whose types are not
//! those of the copy that this crate is built with. They use [`corpus`] and [`prompts`] alone,
//! which have none of them in them.

#![allow(missing_docs, missing_debug_implementations, reason = "only tests use it")]
#![allow(clippy::len_without_is_empty, clippy::new_without_default, reason = "only tests use it")]

// Clients in memory, in paused time.
pub mod leaf;
pub mod paused;

// Clients and servers over sockets, in real time.
pub mod azure;
pub mod delays;
pub mod fault_proxy;
pub mod protocol;
pub mod raw;
pub mod real;
pub mod stack;
pub mod witness;

pub mod corpus;
pub mod measured;
pub mod prompts;
