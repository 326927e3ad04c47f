//! Starting, reloading and stopping.

pub(crate) mod build;
pub(crate) mod demo;
pub(crate) mod reload;
pub(crate) mod run;
pub(crate) mod server;
pub(crate) mod signals;
