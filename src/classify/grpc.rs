//! The gRPC form of a refusal: status and pushback in a trailers-only head.

use std::time::Duration;

use http::{HeaderMap, header::CONTENT_TYPE};

use super::{Hint, names};

/// The gRPC status of a refused call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GrpcRefusal {
    ResourceExhausted,
    Unavailable,
}

/// Whether the head belongs to a gRPC response, `application/grpc-web` included.
pub(super) fn is_spoken(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| {
        let prefix = kind.as_bytes().get(..GRPC.len());
        // Compared from its end, because `application/json` has the same start.
        let is_same = |(given, own): (&u8, &u8)| given.eq_ignore_ascii_case(own);
        prefix.is_some_and(|prefix| prefix.iter().zip(GRPC).rev().all(is_same))
    })
}

/// The refusal in a trailers-only head. Other statuses are answers, and a missing one follows the
/// body.
pub(super) fn refusal(headers: &HeaderMap) -> Option<GrpcRefusal> {
    match headers.get(&names::GRPC_STATUS)?.as_bytes() {
        b"8" => Some(GrpcRefusal::ResourceExhausted),
        b"14" => Some(GrpcRefusal::Unavailable),
        _ => None,
    }
}

/// The pushback in a head of any protocol.
pub(super) fn dictated(headers: &HeaderMap) -> Option<Hint> {
    if is_spoken(headers) { pushback(headers) } else { None }
}

/// The wait dictated by the server (gRFC A6, "Pushback"); `None` if it leaves that to the client.
///
/// A value that is negative or not an integer forbids another attempt: [`Hint::TooLong`].
pub(super) fn pushback(headers: &HeaderMap) -> Option<Hint> {
    let values = headers.get_all(&names::GRPC_RETRY_PUSHBACK_MS).iter();
    values
        .map(|value| {
            let text = std::str::from_utf8(value.as_bytes().trim_ascii());
            let ms = text.ok().and_then(|text| text.parse::<u64>().ok());
            ms.map_or(Hint::TooLong, |ms| Hint::from_wait(Duration::from_millis(ms)))
        })
        .max()
}

const GRPC: &[u8] = b"application/grpc";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::heads::head;

    #[test]
    fn grpc_is_recognised_by_the_content_type() {
        for kind in ["application/grpc", "application/grpc+proto", "Application/gRPC; q=1"] {
            assert!(is_spoken(&head(&[("content-type", kind)])), "{kind}");
        }
        for kind in ["application/json", "application/grp", "", "text/application/grpc"] {
            assert!(!is_spoken(&head(&[("content-type", kind)])), "{kind}");
        }
        assert!(!is_spoken(&HeaderMap::new()));
    }

    #[test]
    fn pushback_is_a_whole_number_of_milliseconds_or_a_prohibition() {
        let read = |value| pushback(&head(&[("grpc-retry-pushback-ms", value)]));
        assert_eq!(read("250"), Some(Hint::After(Duration::from_millis(250))));
        assert_eq!(read("0"), Some(Hint::Zero));
        assert_eq!(read("86400000"), Some(Hint::After(Hint::LONGEST)));
        for forbidden in ["-1", "", "12.5", "soon", "1e3", "86400001", "99999999999999999999999"] {
            assert_eq!(read(forbidden), Some(Hint::TooLong), "{forbidden:?}");
        }
        assert_eq!(pushback(&HeaderMap::new()), None);
    }

    #[test]
    fn of_repeated_pushbacks_a_prohibition_wins() {
        let repeated = ["5", "-1", "9"].map(|ms| ("grpc-retry-pushback-ms", ms));
        assert_eq!(pushback(&head(&repeated)), Some(Hint::TooLong));
    }
}
