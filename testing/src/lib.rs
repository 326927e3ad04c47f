//! Shared by the tests and benches of this workspace.
//!
//! The library's unit tests are built with their own copy of the library, whose types differ from
//! those of the copy that this crate is built with. They use only [`corpus`], [`prompts`] and [`redis`], which
//! contain none of the library's types.

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
pub mod redis;
pub mod stack;
pub mod switch_proxy;
pub mod witness;

pub mod corpus;
pub mod measured;
pub mod prompts;
