//! The gateway as its users meet it: the real binary, over real sockets.

#![cfg(feature = "gateway")]

mod config;
mod emulate;
mod load;
#[cfg(unix)]
mod reload;
mod renewal;
mod requests;
mod serve;
mod served;
mod started;
#[cfg(unix)]
mod strain;
