//! A request's load for a backend: its kind and its weight.

use http::Request;

use super::TryCloneBody;
use crate::{
    azure,
    cooldown::{Load, Traffic, Weight},
};

impl<B: TryCloneBody> Load for Request<B> {
    fn traffic(&self) -> Traffic {
        azure::traffic(self.method(), self.uri().path(), self.body().content().as_deref())
    }

    fn weight(&self) -> Weight {
        let length = || azure::content_length(self.headers());
        weight(self.uri().path(), self.body().content().as_deref(), length)
    }
}

/// The weight of a request with this body, or else with this `length`. If neither is known, it counts
/// as the heaviest.
pub(crate) fn weight(
    path: &str,
    content: Option<&[u8]>,
    length: impl FnOnce() -> Option<u64>,
) -> Weight {
    let tokens = match content {
        Some(content) => azure::tokens(path, Ok(content)),
        None => match length() {
            Some(length) => azure::tokens(path, Err(length)),
            None => return Weight::HEAVIEST,
        },
    };
    Weight::of(tokens)
}
