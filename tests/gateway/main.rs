//! The gateway as its users meet it: the real binary.

#![cfg(feature = "gateway")]

mod config;
