//! The gateway as a program: arguments, output, sockets.

#![cfg(feature = "gateway")]

mod serve;
