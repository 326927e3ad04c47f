//! What the errors of reqwest mean for a request.

use std::error::Error;

use tower_spillover::policy::{ErrorKind, MoveOn};

use super::reqwest;

/// What an error of reqwest is, for [`MoveOn::errors`](tower_spillover::policy::MoveOn::errors).
///
/// | error | kind |
/// |---|---|
/// | no connection: refused, no such name, no TLS, [`connect_timeout`] | [`Connect`](ErrorKind::Connect) |
/// | [`timeout`] of the client or of the request, [`read_timeout`] | [`Timeout`](ErrorKind::Timeout) |
/// | HTTP/2's `REFUSED_STREAM`, or a `GOAWAY` for an earlier stream | [`Unprocessed`](ErrorKind::Unprocessed) |
/// | a connection that broke before the answer | [`Reset`](ErrorKind::Reset) |
/// | a request that cannot be sent, a request body that failed | [`Other`](ErrorKind::Other) |
///
/// reqwest does not say whether a connection was kept from an earlier request, so that none is
/// [`ClosedOnReuse`](ErrorKind::ClosedOnReuse). One that was closed before the request was written is
/// replaced by reqwest itself.
///
/// ```
/// use tower_spillover::policy::MoveOn;
/// use tower_spillover_adapters::reqwest::error_kind;
///
/// // Connect errors move on by default; a connection that breaks does when you take that risk.
/// let move_on = MoveOn::new().errors(error_kind).reset();
/// # drop(move_on);
/// ```
///
/// [`connect_timeout`]: https://docs.rs/reqwest/latest/reqwest/struct.ClientBuilder.html#method.connect_timeout
/// [`timeout`]: https://docs.rs/reqwest/latest/reqwest/struct.ClientBuilder.html#method.timeout
/// [`read_timeout`]: https://docs.rs/reqwest/latest/reqwest/struct.ClientBuilder.html#method.read_timeout
pub fn error_kind(error: &reqwest::Error) -> ErrorKind {
    // A connection that takes too long is both.
    if error.is_connect() {
        return ErrorKind::Connect;
    }
    if error.is_timeout() {
        return ErrorKind::Timeout;
    }
    let is_refused = |error: &h2::Error| {
        let is_refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
        error.is_remote() && (is_refused || error.is_go_away())
    };
    if cause::<h2::Error>(error).is_some_and(is_refused) {
        return ErrorKind::Unprocessed;
    }
    // "User" is hyper's word for its caller, whose body failed for example.
    let is_of_caller = cause::<hyper::Error>(error).is_some_and(hyper::Error::is_user);
    if error.is_request() && !is_of_caller { ErrorKind::Reset } else { ErrorKind::Other }
}

/// A function that says what an error of reqwest is, as [`error_kind`] does: the type that names a stack,
/// `PtuFirst<HttpClient, KindOf>`.
pub type KindOf = fn(&reqwest::Error) -> ErrorKind;

/// What sends a request on by [default](MoveOn::new), connections that cannot be made among it: for each
/// tier, and for the layer around them, which otherwise returns the errors of its tiers.
///
/// ```
/// use tower_spillover::{PtuFirst, RegionRotateLayer, SmartFallbackLayer};
/// use tower_spillover_adapters::reqwest::{HttpClient, KindOf, move_on};
///
/// struct App {
///     azure: PtuFirst<HttpClient, KindOf>,
/// }
///
/// # use tower::Layer;
/// # fn app(ptu: tower_spillover::BackendPool, standard: tower_spillover::BackendPool) -> Result<App, reqwest::Error> {
/// let tier = |pool| RegionRotateLayer::new(pool).move_on(move_on());
/// let tiers = SmartFallbackLayer::new(tier(ptu), tier(standard)).move_on(move_on());
/// Ok(App { azure: tiers.layer(HttpClient::new(reqwest::Client::builder())?) })
/// # }
/// ```
pub fn move_on() -> MoveOn<KindOf> {
    MoveOn::new().errors(error_kind)
}

/// The first cause of the type `T`.
fn cause<T: Error + 'static>(error: &reqwest::Error) -> Option<&T> {
    let mut next = error.source();
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}
