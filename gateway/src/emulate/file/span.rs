//! A duration in TOML: `"250ms"`, `"10s"`, `"1m 30s"`.

use std::{fmt, time::Duration};

use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};

use crate::duration;

#[derive(Clone, Copy, Debug)]
pub(super) struct Span(pub(super) Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Words)
    }
}

struct Words;

impl Visitor<'_> for Words {
    type Value = Span;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration such as \"250ms\" or \"10s\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Span, E> {
        let read = duration::parse(text).map_err(E::custom)?;
        // One day: longer values are mistakes, and shorter ones cannot overflow.
        if read > Duration::from_secs(86_400) {
            return Err(E::custom("longer than a day: shorten it"));
        }
        Ok(Span(read))
    }
}
