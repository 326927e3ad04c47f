//! The options that a request can set by header: wait, class, backend and so on.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use tower_spillover::StickTo;

use super::caller::Caller;
use crate::{
    duration,
    serve::{refusal::Refusal, routing::named_backend::NamedBackend},
};

/// A request's options, as far as its client is allowed to set them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Control {
    pub(crate) max_wait: Option<Duration>,
    /// The client's own class if the request names none.
    pub(crate) class: Option<String>,
    pub(crate) no_spill: bool,
    pub(crate) trace: bool,
    pub(crate) backend: Option<NamedBackend>,
}

impl Control {
    /// Reads the option headers.
    ///
    /// # Errors
    ///
    /// If a header is invalid or not allowed for this client: ignoring it silently would be wrong.
    pub(crate) fn read(headers: &HeaderMap, caller: &Caller) -> Result<Self, Refusal> {
        let mut control = Self { class: caller.class.clone(), ..Self::default() };
        let may_ask = |name: &HeaderName| {
            *name == header::COOKIE || name.as_str().starts_with("x-spillover-")
        };
        if !headers.keys().any(may_ask) {
            return Ok(control);
        }
        let may = caller.may;
        control.backend = match permitted(headers, "x-spillover-backend", may.backend)? {
            Some(name) => Some(NamedBackend::Header(name.to_owned())),
            // A cookie is sent implicitly; ignore it without the permission instead of refusing.
            None if may.backend => StickTo::in_cookie(headers)
                .map(|name| NamedBackend::Cookie(name.as_str().to_owned())),
            None => None,
        };
        if let Some(value) = permitted(headers, "x-spillover-max-wait", may.max_wait)? {
            let wait = duration::parse(value)
                .map_err(|_| unclear("x-spillover-max-wait", "a duration such as 500ms or 2s"))?;
            control.max_wait = Some(wait.min(MAX_WAIT));
        }
        if let Some(value) = permitted(headers, "x-spillover-class", may.class)? {
            control.class = Some(value.to_owned());
        }
        control.no_spill = flag(headers, "x-spillover-no-spill", may.no_spill)?;
        control.trace = flag(headers, "x-spillover-trace", may.trace)?;
        Ok(control)
    }
}

fn flag(headers: &HeaderMap, name: &'static str, may: bool) -> Result<bool, Refusal> {
    match permitted(headers, name, may)? {
        None => Ok(false),
        Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(_) => Err(unclear(name, "true or false")),
    }
}

fn permitted<'a>(
    headers: &'a HeaderMap,
    name: &'static str,
    may: bool,
) -> Result<Option<&'a str>, Refusal> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    if !may {
        let message = format!("This client may not send {name}.");
        return Err(Refusal::new(StatusCode::FORBIDDEN, "403", message));
    }
    let value = HeaderValue::to_str(value).map_err(|_| unclear(name, "visible ASCII"))?;
    Ok(Some(value.trim()))
}

fn unclear(name: &str, expected: &str) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "BadRequest", format!("{name} has to be {expected}."))
}

/// The upper limit of a wait, whatever the request asks for.
const MAX_WAIT: Duration = Duration::from_secs(600);
