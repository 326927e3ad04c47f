//! What the service's requests and answers look like on the wire: everything here reads, nothing
//! decides.

pub(crate) mod error;
pub(crate) mod json;
pub(crate) mod message;
mod operation;
mod path;
pub mod percent;
mod usage;

pub use self::{
    operation::Operation,
    path::{ApiPath, Grammar},
    usage::{Usage, UsageScan},
};
pub(crate) use self::{
    operation::{ApiCall, Kind},
    path::{deployment_segment, segments},
};
