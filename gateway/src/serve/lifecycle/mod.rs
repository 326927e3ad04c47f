//! Starting, reloading and stopping.

pub(crate) mod demo;
pub(crate) mod reload;
pub(crate) mod signals;
