//! Which failures send a request to the next backend or tier.

use tower_spillover::policy::{ErrorKind, MoveOn, RetryBudget};

use super::error::UpstreamError;
use crate::config::{Failure, Failures};

/// Maps an attempt's error to the kind that the layers decide by.
pub(crate) type KindOf = fn(&UpstreamError) -> ErrorKind;

/// What moves a request on, apart from refusals.
pub(crate) fn move_on(settings: &Failures) -> MoveOn<KindOf> {
    let budget = settings.budget.map(|budget| RetryBudget::new(budget.moves, budget.per_success));
    let kind: KindOf = |error| match error {
        UpstreamError::Silent => ErrorKind::Timeout,
        error if error.is_connect() => ErrorKind::Connect,
        error if error.is_unprocessed() => ErrorKind::Unprocessed,
        error if error.is_closed_on_reuse() => ErrorKind::ClosedOnReuse,
        error if error.is_reset() => ErrorKind::Reset,
        UpstreamError::Client(_) | UpstreamError::TwoLengths => ErrorKind::Other,
    };
    let none = MoveOn::none().budget(budget).errors(kind);
    settings.on.iter().fold(none, |move_on, failure| match failure {
        Failure::Connect => move_on.connect(),
        Failure::Reset => move_on.reset(),
        Failure::Timeout => move_on.timeout(),
        Failure::Status(status) => move_on.status(*status),
    })
}
