//! The table of defaults on the front page agrees with the layers.

use std::fmt::Debug;

use tower_spillover::{
    Backend, BackendPool, FirstTokenLayer, Gate, InspectLayer, RegionRotateLayer, RetryAfterPolicy,
    SmartFallbackLayer, WaitLayer,
    fleet::{Fleet, Local},
};

/// A setting, its default as shown on the page, and as shown by `Debug`.
type Default = (&'static str, &'static str, &'static str);

const FALLBACK: &[Default] = &[
    ("SmartFallbackLayer::max_wait", "4 s", "{ max_wait: 4s,"),
    ("SmartFallbackLayer::longest_cooldown", "60 s", "longest_cooldown: 60s,"),
    (
        "SmartFallbackLayer::move_on",
        "500, 502, 503, connecting, too long for the PTU",
        "{ statuses: {500, 502, 503}, errors: 0b1, context_length: Some(true),",
    ),
    ("SmartFallbackLayer::spill_budget", "none", "spill_budget: None,"),
    ("SmartFallbackLayer::sticky", "none", "split: None,"),
];

const GATE: &[Default] = &[
    ("Gate::mode", "adaptive", "mode: Adaptive,"),
    ("Gate::contention", "yield", "contention: Yield,"),
    ("Gate::standing_queue_interval", "60 s", "standing_queue_interval: Some(60s),"),
    ("TokenWeights::output", "3", "output: 3.0,"),
    ("TokenWeights::unstated_output", "256", "unstated_output: 256.0,"),
];

const ROTATE: &[Default] = &[
    ("RegionRotateLayer::max_attempts", "no limit", "max_attempts: 18446744073709551615,"),
    ("RegionRotateLayer::connect_patience", "0 s", "connect_patience: 0ns,"),
    (
        "RegionRotateLayer::move_on",
        "500, 502, 503, connecting",
        "{ statuses: {500, 502, 503}, errors: 0b1, context_length: Some(false),",
    ),
    ("RegionRotateLayer::flex_as_default", "off", "flex_as_default: false,"),
    ("CooldownPolicy::longest", "60 s", "longest: 60s,"),
    ("CooldownPolicy::unknown", "1 s", "unknown: 1s,"),
    ("CooldownPolicy::failed", "1 s", "failed: 1s,"),
    ("CooldownPolicy::misconfigured", "60 s to 1 h", "misconfigured: [60s, 3600s]"),
    ("MoveOn::budget", "500 moves", "budget: Some(RetryBudget { left: 500,"),
];

const WAIT: &[Default] = &[("WaitLayer::max_wait", "4 s", "{ max_wait: 4s,")];

const INSPECT: &[Default] = &[
    ("InspectLayer::body_time", "1 s", "body_ms: 1000,"),
    ("InspectLayer::preamble_time", "30 s", "preamble_ms: 30000,"),
    ("InspectLayer::preamble_limit", "1 MiB", "preamble_bytes: 1048576 "),
];

const FIRST_TOKEN: &[Default] =
    &[("FirstTokenLayer::budget", "10 attempts", "budget: RetryBudget { left: 10,")];

const BACKEND: &[Default] =
    &[("Backend::weight", "1", "weight: 1,"), ("Backend::priority", "1", "priority: 1,")];

const RETRY: &[Default] = &[
    ("RetryAfterPolicy::max_retries", "5", "max_retries: 5,"),
    ("RetryAfterPolicy::max_wait", "60 s", "max_wait: 60s,"),
    (
        "RetryAfterPolicy::backoff",
        "0.5 s, doubled up to 8 s",
        "Backoff { interval: 500ms, delta: 500ms, longest: 8s }",
    ),
];

const FLEET: &[Default] = &[("Fleet::timeout", "50 ms", "timeout: 50ms,")];

#[test]
fn the_defaults_on_the_front_page_are_those_of_the_layers() {
    let backend = Backend::new("a", "https://a.example").unwrap();
    let pool = BackendPool::new([backend.clone().api_key("key")]).unwrap();
    let shown: [(&[Default], String); 9] = [
        (FALLBACK, shown(&SmartFallbackLayer::new((), ()))),
        (GATE, shown(&Gate::new())),
        (ROTATE, shown(&RegionRotateLayer::new(pool))),
        (WAIT, shown(&WaitLayer::new())),
        (INSPECT, shown(&InspectLayer::new())),
        (FIRST_TOKEN, shown(&FirstTokenLayer::new(None))),
        (BACKEND, shown(&backend)),
        (RETRY, shown(&RetryAfterPolicy::new())),
        (FLEET, shown(&Fleet::new("prod", Local::new()).unwrap())),
    ];
    for (defaults, shown) in &shown {
        for (setting, _, value) in *defaults {
            assert!(shown.contains(value), "{setting}: `{value}` is not in {shown}");
        }
    }
    let expected: Vec<(&str, &str)> = shown
        .iter()
        .flat_map(|(defaults, _)| defaults.iter().map(|(setting, default, _)| (*setting, *default)))
        .collect();
    assert_eq!(table(), expected);
}

fn shown(layer: &impl Debug) -> String {
    format!("{layer:?}")
}

/// The first two columns of the page's table.
fn table() -> Vec<(&'static str, &'static str)> {
    let page = include_str!("../../src/lib.rs");
    let (_, table) = page.split_once("//! | setting | default |").expect("the table");
    let rows = table.lines().skip(2).map_while(|line| line.strip_prefix("//! | "));
    rows.map(|row| {
        let mut columns = row.split(" | ");
        let setting = columns.next().expect("a setting");
        let setting = setting.trim_matches(|it| matches!(it, '[' | ']' | '`'));
        (setting, columns.next().expect("a default"))
    })
    .collect()
}
