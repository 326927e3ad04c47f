//! The bodies that pass through the layers: requests that can be sent again, responses.

mod load;
mod observe;
mod on_usage;
mod response;
mod try_clone;

#[cfg(test)]
pub(crate) use self::on_usage::tests as usage_tests;
pub(crate) use self::{
    load::weight,
    observe::{Observer, ResponseTap},
    on_usage::{Admitted, UsageSinks},
    response::ReadAhead,
};
pub use self::{
    on_usage::{OnUsage, UsageSink},
    response::ResponseBody,
    try_clone::TryCloneBody,
};
