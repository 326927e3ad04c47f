//! Writes a wait into the head of a throttled response, in every form that clients read.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header::RETRY_AFTER};

use super::{Digits, Hint, names};

/// Makes `wait` the hint of `headers`, whatever they said before.
///
/// `retry-after-ms` is rounded up to a millisecond and `retry-after` to a second, so that no reader
/// comes early: [`Hint::read`](super::Hint::read) returns `wait`, or less than 1 ms more. A pushback
/// for gRPC clients is replaced too, and takes precedence over the wait in a status's details.
/// Rate-limit headers stay, since they describe the service; only with a wait of zero are the resets
/// removed, because they would be taken for the wait.
///
/// `x-should-retry` asks OpenAI's clients to retry if they can make that wait, and not to otherwise:
/// openai-node would retry after half a second instead of a longer wait.
///
/// Returns the hint that a reader gets.
pub(crate) fn write_retry_after(headers: &mut HeaderMap, wait: Duration) -> Hint {
    let hint = write_wait(headers, wait);
    let worth = if wait <= MAX_CLIENT_WAIT { "true" } else { "false" };
    headers.insert(&names::X_SHOULD_RETRY, HeaderValue::from_static(worth));
    hint
}

/// Like [`write_retry_after`], but keeps the service's `x-should-retry`.
pub(crate) fn write_wait(headers: &mut HeaderMap, wait: Duration) -> Hint {
    let ms = wait.as_nanos().div_ceil(NANOS_IN_MS);
    let ms = u64::try_from(ms).unwrap_or(u64::MAX);
    let hint = Hint::from_wait(Duration::from_millis(ms));
    let ms = Digits::of(ms).value();
    let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0));

    headers.remove(&names::X_MS_RETRY_AFTER_MS);
    if wait.is_zero() {
        for reset in names::TOKENS.reset.iter().chain(&names::REQUESTS.reset) {
            headers.remove(reset);
        }
    }
    let grpc = [&names::GRPC_RETRY_PUSHBACK_MS, &names::GRPC_STATUS_DETAILS];
    if grpc.iter().any(|name| headers.contains_key(*name)) {
        headers.insert(&names::GRPC_RETRY_PUSHBACK_MS, ms.clone());
    }
    headers.insert(&names::RETRY_AFTER_MS, ms);
    headers.insert(RETRY_AFTER, Digits::of(seconds).value());
    hint
}

/// Makes `wait` the hint of `headers`, and forbids retrying the request that they answer.
pub(crate) fn write_retry_after_final(headers: &mut HeaderMap, wait: Duration) -> Hint {
    let hint = write_wait(headers, wait);
    forbid_retry(headers);
    hint
}

/// Whether `headers` still carry `hint` as [`write_wait`] wrote it. If so, a reader gets it.
pub(super) fn still_asks(headers: &HeaderMap, hint: Hint) -> bool {
    let mut written = headers.get_all(&names::RETRY_AFTER_MS).iter();
    let (Some(ms), None) = (written.next(), written.next()) else { return false };
    let ms = ms.to_str().ok().and_then(|ms| ms.parse().ok());
    // A pushback takes precedence.
    ms.map(Duration::from_millis).map(Hint::After) == Some(hint)
        && !headers.contains_key(&names::GRPC_RETRY_PUSHBACK_MS)
}

/// Asks OpenAI's clients not to retry, whatever else `headers` say.
pub(crate) fn forbid_retry(headers: &mut HeaderMap) {
    headers.insert(&names::X_SHOULD_RETRY, HeaderValue::from_static("false"));
}

/// The longest wait of openai-node 7; openai-python waits up to two minutes.
const MAX_CLIENT_WAIT: Duration = Duration::from_secs(60);
const NANOS_IN_MS: u128 = 1_000_000;

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use proptest::prelude::*;

    use super::*;
    use crate::classify::{
        Outcome,
        heads::{NOW, any_head, head, never},
    };

    #[track_caller]
    fn assert_announced(wait: Duration, ms: &str, seconds: &str) {
        let mut headers = HeaderMap::new();
        write_retry_after(&mut headers, wait);
        assert_eq!(headers["retry-after-ms"], ms, "{wait:?}");
        assert_eq!(headers["retry-after"], seconds, "{wait:?}");
        assert_eq!(headers.len(), 3, "and one of the two words about a retry");
    }

    // Lesson 5: a client that will not make a wait must not substitute a shorter one.
    #[test]
    fn a_client_must_not_retry_after_a_wait_that_it_would_cut_short() {
        let worth = |wait, write: fn(&mut HeaderMap, Duration) -> Hint| {
            let mut headers = head(&[("x-should-retry", "true"), ("x-should-retry", "false")]);
            write(&mut headers, wait);
            assert_eq!(headers.get_all("x-should-retry").iter().count(), 1);
            headers["x-should-retry"] == "true"
        };
        let minute = Duration::from_secs(60);
        assert!(worth(minute, write_retry_after));
        assert!(!worth(minute + Duration::from_nanos(1), write_retry_after));
        assert!(!worth(Duration::from_millis(1), write_retry_after_final));
    }

    #[test]
    fn waits_are_rounded_up_and_zero_stays_zero() {
        assert_announced(Duration::ZERO, "0", "0");
        assert_announced(Duration::from_nanos(1), "1", "1");
        assert_announced(Duration::from_millis(43), "43", "1");
        assert_announced(Duration::from_micros(1_000_001), "1001", "2");
        assert_announced(Duration::from_secs(60), "60000", "60");
        assert_announced(Duration::MAX, "18446744073709551615", "18446744073709551615");
    }

    #[test]
    fn every_earlier_wait_is_replaced() {
        let mut headers = head(&[
            ("retry-after", "86400"),
            ("retry-after", "Fri, 29 Sep 2023 16:26:57 GMT"),
            ("retry-after-ms", "86400000"),
            ("retry-after-ms", "1"),
            ("x-ms-retry-after-ms", "86400000"),
            ("x-ms-region", "East US 2"),
        ]);
        write_retry_after(&mut headers, Duration::from_millis(1_500));
        assert_eq!(headers.get_all("retry-after").iter().collect::<Vec<_>>(), ["2"]);
        assert_eq!(headers.get_all("retry-after-ms").iter().collect::<Vec<_>>(), ["1500"]);
        assert_eq!(headers["x-ms-region"], "East US 2");
        assert_eq!(headers.len(), 4);
    }

    #[test]
    fn a_grpc_client_reads_the_announced_wait_instead_of_the_servers_pushback() {
        let mut headers = head(&[
            ("content-type", "application/grpc"),
            ("grpc-status", "8"),
            ("grpc-retry-pushback-ms", "-1"),
            ("grpc-retry-pushback-ms", "60000"),
        ]);
        write_retry_after(&mut headers, Duration::from_millis(20));
        let hint = Hint::After(Duration::from_millis(20));
        assert_eq!(Outcome::of(StatusCode::OK, &headers, never), Outcome::Throttled(hint));
        // It takes precedence over a `RetryInfo` of 1.5 s.
        let details =
            "CAgaNgoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLlJldHJ5SW5mbxIKCggIARCAyrXuAQ";
        for status in ["8", "14"] {
            let mut headers = head(&[
                ("content-type", "application/grpc"),
                ("grpc-status", status),
                ("grpc-status-details-bin", details),
            ]);
            write_retry_after(&mut headers, Duration::from_millis(20));
            assert_eq!(Outcome::of(StatusCode::OK, &headers, never), Outcome::Throttled(hint));
        }
    }

    proptest! {
        #[test]
        fn a_reader_gets_what_headers_still_ask_for(
            mut headers in any_head(),
            ms in 1_u64..100_000_000,
            others in any_head(),
        ) {
            let written = write_retry_after(&mut headers, Duration::from_millis(ms));
            prop_assert_eq!(
                still_asks(&headers, written),
                written != Hint::TooLong && !headers.contains_key("grpc-retry-pushback-ms"),
            );
            for (name, value) in &others {
                headers.append(name, value.clone());
            }
            if still_asks(&headers, written) {
                let outcome = Outcome::of(StatusCode::TOO_MANY_REQUESTS, &headers, NOW);
                prop_assert_eq!(outcome, Outcome::Throttled(written));
            }
        }

        #[test]
        fn a_reader_waits_as_announced_or_less_than_a_millisecond_more(
            mut headers in any_head(),
            wait in prop_oneof![Just(0), 1_u64..10_000_000, any::<u64>()],
        ) {
            let longest = u64::try_from(Hint::LONGEST.as_nanos()).expect("a day fits");
            let wait = Duration::from_nanos(wait % (longest + 1));
            let written = write_retry_after(&mut headers, wait);
            let read = Hint::read(&headers, never);
            prop_assert_eq!(written, read);
            let read = read.duration().expect("a wait of at most a day is read back");
            prop_assert!(read >= wait && read - wait < Duration::from_millis(1));

            let seconds = headers["retry-after"].to_str().expect("digits");
            let seconds = Duration::from_secs(seconds.parse().expect("digits"));
            prop_assert!(seconds >= wait && seconds - wait < Duration::from_secs(1));

            let outcome = Outcome::of(StatusCode::TOO_MANY_REQUESTS, &headers, never);
            let Outcome::Throttled(hint) = outcome else { panic!("a 429 is throttled") };
            prop_assert_eq!(hint.duration(), Some(read));
        }
    }
}
