//! The wire format of the service's requests and answers: this module reads, and decides nothing.

mod content;
mod demand;
pub(crate) mod error;
pub(crate) mod events;
pub(crate) mod fields;
pub(crate) mod json;
mod member_names;
pub(crate) mod message;
mod model_rename;
mod multipart;
mod operation;
mod path;
pub mod percent;
mod scanned_body;
mod traffic;
mod usage;

pub use self::{
    content::{ContentKind, content_length},
    member_names::MemberNames,
    model_rename::ModelRename,
    multipart::{BrokenForm, Part, Parts},
    operation::Operation,
    path::{ApiPath, Grammar},
    scanned_body::ScannedBody,
    usage::{Usage, UsageScan},
};
pub(crate) use self::{
    demand::Demand,
    member_names::NameScan,
    model_rename::{MODEL_PART, ModelReader},
    multipart::boundary,
    operation::{ApiCall, Kind},
    path::segments,
    traffic::{tokens, traffic},
};
