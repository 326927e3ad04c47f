//! Decisions only: from a response head to an outcome, from an outcome to what happens next.

use std::{
    hint::black_box,
    time::{Duration, SystemTime},
};

use criterion::Criterion;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tower_spillover::{
    classify::{Hint, Outcome},
    policy::{CooldownPolicy, FallbackFacts, FallbackPolicy, WaitThenSpill},
    retry_after::Backoff,
};

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decisions");
    for (name, status, head) in HEADS {
        let (status, head) = (StatusCode::from_u16(*status).expect("a status"), headers(head));
        group.bench_function(*name, |bencher| {
            bencher.iter(|| {
                Outcome::of(black_box(status), black_box(&head), || SystemTime::UNIX_EPOCH)
            });
        });
    }
    let hint = Hint::After(Duration::from_millis(43));
    let facts = FallbackFacts::new(hint, Duration::from_millis(10), Duration::from_secs(4), 1);
    group.bench_function("wait or spill", |bencher| {
        bencher.iter(|| WaitThenSpill.next(black_box(&facts)));
    });
    group.bench_function("rest of a backend", |bencher| {
        bencher.iter(|| CooldownPolicy::default().after(black_box(Outcome::Throttled(hint))));
    });
    let backoff = Backoff::new(Duration::from_secs(4), Duration::from_secs(2));
    group.bench_function("backoff", |bencher| {
        bencher.iter(|| black_box(backoff).wait(black_box(3), black_box(1 << 63)));
    });
    group.finish();
}

type Line = (&'static str, &'static str);

const HEADS: &[(&str, u16, &[Line])] = &[
    ("classify 200", 200, &[JSON, REGION, REMAINING]),
    ("classify 429 in milliseconds", 429, &[JSON, SECOND, ("retry-after-ms", "43"), REGION]),
    ("classify 429 in seconds", 429, &[JSON, SECOND, REGION]),
    ("classify 429 by its date", 429, &[JSON, DATE, REGION]),
    ("classify 429 by its reset", 429, &[JSON, REGION, REMAINING, RESET]),
];

const JSON: Line = ("content-type", "application/json");
const REGION: Line = ("x-ms-region", "Sweden Central");
const SECOND: Line = ("retry-after", "1");
const DATE: Line = ("retry-after", "Fri, 02 Jan 1970 00:00:07 GMT");
const REMAINING: Line = ("x-ratelimit-remaining-tokens", "0");
const RESET: Line = ("x-ratelimit-reset-tokens", "6m0s");

fn headers(lines: &[Line]) -> HeaderMap {
    let pair = |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
    lines.iter().map(pair).collect()
}
