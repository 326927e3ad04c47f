//! The adapters over sockets, against the emulator.

#![allow(clippy::duplicate_mod, reason = "both versions of reqwest have the same tests")]

mod async_openai;
mod axum_proxy;
mod grpc;
mod hyper;
mod reqwest_012;
mod reqwest_013;
mod rig;

use spillover_testing::{azure, protocol, raw, real as clock, witness};
