//! Which web pages may use the gateway.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

/// Which web pages may use the gateway from a browser (the Fetch standard, section 3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    pub origins: Origins,
    /// The headers that a request may have. `None`: any that it asks for.
    pub headers: Option<Vec<HeaderName>>,
    /// Whether requests may have cookies. Defaults to no: keys are sent in headers.
    pub credentials: bool,
    /// How long a browser caches a preflight's answer. Defaults to 10 min.
    pub max_age: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    Any,
    These(Vec<HeaderValue>),
}

impl Default for Origins {
    fn default() -> Self {
        Self::These(Vec::new())
    }
}
