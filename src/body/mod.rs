//! The bodies that pass through the layers: requests that can be sent again, responses.

mod response;
mod try_clone;

pub use self::{response::ResponseBody, try_clone::TryCloneBody};
