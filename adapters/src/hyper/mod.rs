//! hyper's pooled client: what its errors mean for a request.
//!
//! The layers wrap [`Client`](hyper_util::client::legacy::Client) as it is. What they cannot know is what its
//! errors mean, so that by default each of them is the caller's; with [`move_on`] a backend that cannot be
//! connected to is left for the next one:
//!
//! ```
//! use bytes::Bytes;
//! use http_body_util::Full;
//! use hyper_util::client::legacy::{Client, connect::HttpConnector};
//! use tower_spillover::{PtuFirst, RegionRotateLayer, SmartFallbackLayer};
//! use tower_spillover_adapters::hyper::{KindOf, move_on};
//!
//! struct App {
//!     azure: PtuFirst<Client<HttpConnector, Full<Bytes>>, KindOf>,
//! }
//!
//! # use {hyper_util::rt::TokioExecutor, tower::Layer, tower_spillover::BackendPool};
//! # fn app(ptu: BackendPool, standard: BackendPool) -> App {
//! let tier = |pool| RegionRotateLayer::new(pool).move_on(move_on());
//! let tiers = SmartFallbackLayer::new(tier(ptu), tier(standard)).move_on(move_on());
//! App { azure: tiers.layer(Client::builder(TokioExecutor::new()).build_http()) }
//! # }
//! ```

use std::{error::Error, iter};

use hyper_util::client::legacy;
use tower_spillover::policy::{ErrorKind, MoveOn};

/// What an error of hyper's client is, for [`MoveOn::errors`].
///
/// | error | kind |
/// |---|---|
/// | no connection: refused, no such name, no TLS, the connector's timeout | [`Connect`](ErrorKind::Connect) |
/// | HTTP/2's `REFUSED_STREAM`, or a `GOAWAY` for an earlier stream | [`Unprocessed`](ErrorKind::Unprocessed) |
/// | a connection that broke before the answer | [`Reset`](ErrorKind::Reset) |
/// | a request that cannot be sent, a request body that failed | [`Other`](ErrorKind::Other) |
///
/// hyper does not say whether a connection was kept from an earlier request, so that none is
/// [`ClosedOnReuse`](ErrorKind::ClosedOnReuse). One that was closed before the request was written is
/// replaced by hyper itself. Its client has no timeout for an answer; that of a layer around it has an error
/// type of its own.
pub fn error_kind(error: &legacy::Error) -> ErrorKind {
    if error.is_connect() {
        return ErrorKind::Connect;
    }
    let is_refused = |error: &h2::Error| {
        let is_refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
        error.is_remote() && (is_refused || error.is_go_away())
    };
    if cause::<h2::Error>(error).is_some_and(is_refused) {
        return ErrorKind::Unprocessed;
    }
    // "User" is hyper's word for its caller, whose body failed for example.
    match cause::<hyper::Error>(error) {
        Some(broken) if !broken.is_user() => ErrorKind::Reset,
        _ => ErrorKind::Other,
    }
}

/// A function that says what an error of hyper's client is, as [`error_kind`] does: the type that names a
/// stack, `PtuFirst<Client<C, B>, KindOf>`.
pub type KindOf = fn(&legacy::Error) -> ErrorKind;

/// What sends a request on by [default](MoveOn::new), connections that cannot be made among it: for each
/// tier, and for the layer around them, which otherwise returns the errors of its tiers.
pub fn move_on() -> MoveOn<KindOf> {
    MoveOn::new().errors(error_kind)
}

/// The first cause of the type `T`.
fn cause<T: Error + 'static>(error: &legacy::Error) -> Option<&T> {
    iter::successors(error.source(), |&cause| cause.source()).find_map(|cause| cause.downcast_ref())
}
