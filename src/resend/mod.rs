//! The one future that all layers share, and the only place that reads clocks or sleeps.

pub(crate) mod clock;
mod course;
mod future;
mod spare;

pub(crate) use self::{
    course::{Course, Readied, Step},
    future::Resend,
};
