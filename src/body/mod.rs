//! The bodies that pass through the layers: requests that can be sent again, responses.

mod lazy_content;
mod load;
mod observe;
mod on_usage;
mod response;
mod try_clone;

#[cfg(test)]
pub(crate) use self::on_usage::tests as usage_tests;
pub(crate) use self::{
    lazy_content::JoinPieces,
    load::weight,
    observe::{Observer, ResponseTap},
    on_usage::{Admitted, UsageSinks},
    response::ReadAhead,
};
pub use self::{
    lazy_content::LazyContent,
    on_usage::{OnUsage, UsageSink},
    response::ResponseBody,
    try_clone::TryCloneBody,
};
