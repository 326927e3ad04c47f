//! What the errors of a channel mean for a request that could go elsewhere.

use std::{error::Error, iter};

use tonic::{ConnectError, TimeoutExpired, transport};
use tower_spillover::policy::ErrorKind;

/// What an error of a channel is, for [`MoveOn::errors`](tower_spillover::policy::MoveOn::errors): a server
/// that cannot be connected to has seen nothing of a call, nor has one that refused its stream.
///
/// ```
/// use tower_spillover::{SmartFallbackLayer, policy::MoveOn};
/// use tower_spillover_adapters::tonic::{GrpcChannel, error_kind};
///
/// # fn f(primary: GrpcChannel, fallback: GrpcChannel) {
/// let tiers = SmartFallbackLayer::new(primary, fallback)
///     .move_on(MoveOn::new().errors(error_kind))
///     .into_service();
/// # drop(tiers);
/// # }
/// ```
pub fn error_kind(error: &transport::Error) -> ErrorKind {
    let first: &(dyn Error + 'static) = error;
    let causes = iter::successors(Some(first), |&error| error.source());
    causes.map(kind).fold(ErrorKind::Other, |found, kind| match (found, kind) {
        // What says more of a connection that broke is among the causes of that.
        (ErrorKind::Other, Some(kind)) | (_, Some(kind @ ErrorKind::Unprocessed)) => kind,
        _ => found,
    })
}

fn kind(error: &(dyn Error + 'static)) -> Option<ErrorKind> {
    if error.is::<ConnectError>() {
        Some(ErrorKind::Connect)
    } else if error.is::<TimeoutExpired>() {
        Some(ErrorKind::Timeout)
    } else if let Some(error) = error.downcast_ref::<h2::Error>() {
        let is_refused = error.reason() == Some(h2::Reason::REFUSED_STREAM) || error.is_go_away();
        let is_unprocessed = error.is_remote() && is_refused;
        Some(if is_unprocessed { ErrorKind::Unprocessed } else { ErrorKind::Reset })
    } else if error.is::<hyper::Error>() {
        Some(ErrorKind::Reset)
    } else {
        None
    }
}
