//! The head of an answer: its hint, compared with a simple parser for the plain cases.
#![no_main]

use std::{
    cell::Cell,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use libfuzzer_sys::fuzz_target;
use tower_spillover::{
    classify::{Classify, Hint, Outcome, Provider},
    fuzzing,
};

// The first line has the status, in place of an HTTP/1.1 status line; each other line is a header,
// whose name may be abbreviated to one byte below 32.
fuzz_target!(|text: &[u8]| {
    let mut lines = text.split(|byte| *byte == b'\n');
    let status = lines.next().unwrap_or_default();
    let status = status.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    let status = StatusCode::from_bytes(status).unwrap_or(StatusCode::TOO_MANY_REQUESTS);
    let lines: Vec<_> = lines.filter_map(header).take(16).collect();
    let headers: HeaderMap = lines.iter().cloned().collect::<Appended>().0;

    let reads = Cell::new(0);
    let now = || {
        reads.set(reads.get() + 1);
        // Fri, 29 Sep 2023 16:26:37 GMT
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_696_004_797)
    };
    let outcome = Outcome::of(status, &headers, now);
    assert!(reads.get() <= 1, "the clock is read once");
    match (status.as_u16(), outcome) {
        (_, Outcome::Throttled(Hint::After(wait))) => {
            assert!(!wait.is_zero() && wait <= Hint::LONGEST);
        }
        (429 | 500..=599 | 200, Outcome::Throttled(_))
        | (500 | 502 | 503 | 504, Outcome::Failed) => {}
        (200, Outcome::Failed) => assert!(headers.contains_key("grpc-status")),
        (429 | 529 | 500 | 502 | 503 | 504, outcome) => panic!("{status}: {outcome:?}"),
        (401..=403 | 410, outcome) => assert_eq!(outcome, Outcome::Misconfigured, "{status}"),
        (_, outcome) => assert_eq!(outcome, Outcome::Answered, "{status}"),
    }

    if status.as_u16() >= 400 {
        for provider in Provider::ALL {
            let verdict = provider.classify(status, &headers, &now);
            if let Outcome::Throttled(Hint::After(wait)) = verdict.outcome() {
                assert!(!wait.is_zero() && wait <= Hint::LONGEST, "{provider}");
            }
        }
        let azure = Provider::Azure.classify(status, &headers, &now);
        assert_eq!(azure.outcome(), outcome, "the default rules are Azure's");
    }

    let hint = Hint::read(&headers, now);
    if let Some(expected) = by_hand(&lines) {
        assert_eq!(hint, expected);
    }
    if status == StatusCode::TOO_MANY_REQUESTS && !headers.contains_key("content-type") {
        assert_eq!(outcome, Outcome::Throttled(hint));
    }
    let names_what_is_spent = ["x-ratelimit-type", "x-rate-limit-type", "policy-id"];
    if !names_what_is_spent.iter().any(|name| headers.contains_key(*name)) {
        let backwards = lines.iter().rev().cloned().collect::<Appended>().0;
        assert_eq!(Hint::read(&backwards, now), hint, "the order of headers says nothing");
    }

    if let Some(level) = fuzzing::utilization(&headers) {
        assert!((0.0..=1e4).contains(&level));
    }
    fuzzing::should_retry(&headers);
    fuzzing::native_spillover(&headers);
    if let Some(wait) = hint.duration() {
        let mut headers = headers;
        fuzzing::write_retry_after(&mut headers, wait);
        let read = Hint::read(&headers, || panic!("no date is announced")).duration();
        let read = read.expect("what was announced is read");
        assert!(read >= wait && read - wait < Duration::from_millis(1));
    }
});

struct Appended(HeaderMap);

impl FromIterator<(HeaderName, HeaderValue)> for Appended {
    fn from_iter<I: IntoIterator<Item = (HeaderName, HeaderValue)>>(lines: I) -> Self {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, value);
        }
        Self(headers)
    }
}

fn header(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = match line {
        [short @ 0..32, value @ ..] => {
            (NAMES[usize::from(*short) % NAMES.len()].parse().ok()?, value)
        }
        _ => {
            let colon = line.iter().position(|byte| *byte == b':')?;
            (HeaderName::from_bytes(&line[..colon]).ok()?, &line[colon + 1..])
        }
    };
    Some((name, HeaderValue::from_bytes(value.trim_ascii()).ok()?))
}

/// The hint, if every relevant header has a single whole number.
fn by_hand(lines: &[(HeaderName, HeaderValue)]) -> Option<Hint> {
    let (mut ms, mut other_ms, mut seconds, mut reset) = (None, None, None, None);
    for (name, value) in lines {
        let slot = match name.as_str() {
            "retry-after-ms" => &mut ms,
            "x-ms-retry-after-ms" => &mut other_ms,
            "retry-after" => &mut seconds,
            "x-ratelimit-reset-tokens" => &mut reset,
            name if name.starts_with("x-rate") || name == "policy-id" => return None,
            _ => continue,
        };
        let text = value.to_str().ok()?;
        if text.is_empty() || text.len() > 12 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *slot = (*slot).max(Some(text.parse::<u64>().ok()?));
    }
    let in_ms = |seconds: u64| seconds * 1_000;
    let ladder = [ms, other_ms, seconds.map(in_ms), reset.filter(|it| *it > 0).map(in_ms)];
    let longest = u64::try_from(Hint::LONGEST.as_millis()).expect("a day");
    Some(match ladder.into_iter().flatten().find(|ms| *ms > 0) {
        Some(ms) if ms > longest => Hint::TooLong,
        Some(ms) => Hint::After(Duration::from_millis(ms)),
        None if ladder == [None; 4] => Hint::None,
        None => Hint::Zero,
    })
}

const NAMES: [&str; 30] = [
    "retry-after-ms",
    "retry-after",
    "x-ms-retry-after-ms",
    "x-ratelimit-reset-tokens",
    "x-ratelimit-reset-requests",
    "x-rate-limit-reset-tokens",
    "x-rate-limit-reset-requests",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-remaining-requests",
    "x-rate-limit-remaining-tokens",
    // A line feed ends a line.
    "retry-after",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-limit-requests",
    "x-ratelimit-type",
    "x-rate-limit-type",
    "policy-id",
    "grpc-status",
    "grpc-retry-pushback-ms",
    "grpc-status-details-bin",
    "content-type",
    "azure-openai-deployment-utilization",
    "x-should-retry",
    "x-ms-is-spilled-over",
    "x-ms-spillover-error",
    "x-ms-deployment-name",
    "date",
    "x-amzn-errortype",
    "anthropic-ratelimit-requests-remaining",
    "anthropic-ratelimit-requests-reset",
    "ratelimitbysize-reset",
];
