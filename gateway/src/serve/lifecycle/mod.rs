//! Starting, reloading and stopping.

pub(crate) mod build;
mod demo;
pub(crate) mod reload;
pub(crate) mod run;
pub(crate) mod server;
mod signals;
