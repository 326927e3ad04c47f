//! A refusal of the layers as a gRPC status.

use std::time::SystemTime;

use bytes::Bytes;
use http::Response;
use tonic::{Code, Status, metadata::MetadataMap};
use tonic_types::{ErrorDetails, StatusExt};
use tower_spillover::classify::{Hint, Outcome};

use super::retry_info::pushback;

/// The status that a gRPC server returns where `response`, an answer of the layers, is a refusal; `None`
/// for any other answer.
///
/// It is `RESOURCE_EXHAUSTED`, with the wait as `grpc-retry-pushback-ms` and as a
/// `google.rpc.RetryInfo`, which gRPC clients read in all languages. Where no wait helps, the pushback
/// forbids another attempt; where none is known, there is neither.
pub fn refusal_status<B>(response: &Response<B>) -> Option<Status> {
    let hint = refused(response)?;
    let mut metadata = MetadataMap::new();
    if let Some(pushback) = pushback(hint) {
        metadata.as_mut().insert("grpc-retry-pushback-ms", pushback);
    }
    Some(match hint.duration() {
        Some(wait) => {
            let details = ErrorDetails::with_retry_info(Some(wait));
            Status::with_error_details_and_metadata(CODE, message(hint), details, metadata)
        }
        None => Status::with_details_and_metadata(CODE, message(hint), Bytes::new(), metadata),
    })
}

/// What a refusal asks to wait; `None` for any other answer.
pub(super) fn refused<B>(response: &Response<B>) -> Option<Hint> {
    match Outcome::of_response(response, wall) {
        Outcome::Throttled(hint) => Some(hint),
        _ => None,
    }
}

fn message(hint: Hint) -> String {
    match hint {
        Hint::None => "No backend is open.".to_owned(),
        Hint::Zero => "No backend was open. Another attempt may be made at once.".to_owned(),
        Hint::After(wait) => format!("No backend is open for {} ms.", wait.as_millis().max(1)),
        Hint::TooLong => "No backend is open, and none will be soon.".to_owned(),
    }
}

/// The wall clock, with which an HTTP-date is compared.
#[expect(clippy::disallowed_methods, reason = "the one wall clock read")]
fn wall() -> SystemTime {
    SystemTime::now()
}

const CODE: Code = Code::ResourceExhausted;
