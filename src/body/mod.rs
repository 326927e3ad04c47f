//! The bodies that pass through the layers: requests that can be sent again, responses.

mod observe;
mod response;
mod try_clone;

#[cfg(test)]
pub(crate) use self::observe::tests as observe_tests;
pub(crate) use self::observe::{Observer, OnUsage, ResponseTap, UsageSink};
pub(crate) use self::response::Ahead;
pub use self::{response::ResponseBody, try_clone::TryCloneBody};
