//! What the service's requests and answers look like on the wire: everything here reads, nothing
//! decides.

pub(crate) mod error;
pub(crate) mod json;
pub(crate) mod message;
mod operation;
mod path;
pub(crate) mod percent;
mod usage;

pub use self::usage::{Usage, UsageScan};
pub(crate) use self::{
    operation::{Kind, Operation},
    path::{Grammar, Reading, deployment_segment, names_model_in_body},
};
