//! The backend that a request selects by header or cookie.

use http::StatusCode;
use tower_spillover::StickTo;

use super::routes::ModelRoute;
use crate::serve::refusal::Refusal;

/// The backend that a request selects.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NamedBackend {
    Header(String),
    /// Sent implicitly by a browser, and possibly older than the configuration.
    Cookie(String),
}

impl NamedBackend {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Header(name) | Self::Cookie(name) => name,
        }
    }

    /// The backend for the layers, if `route` has it. A cookie may name one that no longer exists.
    ///
    /// # Errors
    ///
    /// If a header names a backend that the model does not have.
    pub(crate) fn of(self, route: &ModelRoute) -> Result<Option<StickTo>, Refusal> {
        let problem = if !route.is_sticky() {
            "The model does not keep requests with a backend: sticky is false in its configuration."
        } else if !route.has_backend(self.name()) {
            "x-spillover-backend names an unknown backend."
        } else {
            let (Self::Header(name) | Self::Cookie(name)) = self;
            return Ok(Some(StickTo::from(name)));
        };
        match self {
            Self::Header(_) => Err(Refusal::new(StatusCode::BAD_REQUEST, "BadRequest", problem)),
            Self::Cookie(_) => Ok(None),
        }
    }
}
