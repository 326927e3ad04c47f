//! The future that the layers which send a request again share.

mod course;
mod future;
mod spare;

pub(crate) use self::{
    course::{Course, Readied, Step},
    future::Resend,
};
