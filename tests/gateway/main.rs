//! The gateway's binary over real sockets, one module for each part.

#![cfg(feature = "gateway")]

mod emulate;
mod load;
mod started;
