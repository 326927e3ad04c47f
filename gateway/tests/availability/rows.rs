//! What to measure: which resources fail in which way, the callers, and the requirements.

use std::time::Duration;

use spillover_emulator::{Deployment, Fault, Outage, Pace, Ptu, Refusal, Resource, Standard};

/// One line of the table.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// The resources; the first ones are the PTU tier.
    pub(crate) resources: fn() -> Vec<Resource>,
    pub(crate) ptus: usize,
    /// The model's settings with failover; without it, no failure moves on.
    pub(crate) failover: &'static str,
    pub(crate) healthy_per_second: u32,
    /// Another caller, which does not count: its results are irrelevant.
    pub(crate) neighbour: Option<Neighbour>,
    pub(crate) lasts: Duration,
    /// Which resource restarts at each of [`RESTARTS`].
    pub(crate) restarts: &'static [usize],
    pub(crate) bar: Bar,
}

/// A caller whose requests fail or are refused at every backend.
#[derive(Clone, Copy)]
pub(crate) struct Neighbour {
    pub(crate) per_second: u32,
    pub(crate) path: &'static str,
    pub(crate) body: &'static str,
}

/// Additional requirements; with failover, no less must be served than without.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Bar {
    None,
    /// At least this share is served.
    Share(f64),
    /// Only requests in flight while a resource restarted are lost.
    UnderWay,
}

impl Row {
    pub(crate) const fn is_busy(&self) -> bool {
        self.healthy_per_second >= 100
    }
}

pub(crate) fn all(lasts: Duration) -> Vec<Row> {
    let row = |name, resources, per_second| Row {
        name,
        resources,
        ptus: 0,
        failover: r#"failures = ["connect", "500"]"#,
        healthy_per_second: per_second,
        neighbour: None,
        lasts,
        restarts: &[],
        bar: Bar::None,
    };
    let beside = |name, resources, per_second, neighbour| Row {
        neighbour: Some(neighbour),
        lasts: 2 * lasts,
        bar: Bar::Share(0.99),
        ..row(name, resources, per_second)
    };
    let poison = Neighbour { per_second: 1, path: CHAT, body: POISON_BODY };
    let huge = Neighbour { per_second: 2, path: CHAT, body: HUGE_BODY };
    let flex = Neighbour { per_second: 2, path: CHAT, body: FLEX_BODY };
    let videos = Neighbour { per_second: 2, path: VIDEOS, body: VIDEO_BODY };
    let refused = |name, resources| Row {
        lasts: 2 * lasts,
        bar: Bar::Share(0.99),
        ..row(name, resources, 20)
    };
    let restarting = |name, resources, restarts| Row {
        failover: "",
        lasts: Duration::from_secs(12),
        restarts,
        bar: Bar::UnderWay,
        ..row(name, resources, 10)
    };
    vec![
        row("3 Standard, 1 % 500", || ["a", "b", "c"].map(|name| failing(name, 0.01)).into(), 300),
        row("2 Standard, 10 % 500", || ["a", "b"].map(|name| failing(name, 0.1)).into(), 100),
        Row {
            ptus: 1,
            ..row("PTU + Standard, 2 % 500", || vec![failing_ptu(), failing("b", 0.02)], 100)
        },
        Row {
            failover: "",
            ..row(
                "3 Standard, defaults, 1 % no connect",
                || ["a", "b", "c"].map(refusing_connections).into(),
                300,
            )
        },
        beside("3 Standard, poison 1/s", three_standard, 20, poison),
        beside("3 Standard, poison 1/s, quiet", three_standard, 1, poison),
        beside("2 Standard, huge requests 2/s", two_limited, 20, huge),
        Row { ptus: 1, ..beside("PTU + Standard, huge requests 2/s", limited_ptu, 20, huge) },
        beside("2 Standard, flex refused 2/s", two_limited, 20, flex),
        beside("2 Standard, videos refused 2/s", two_limited, 20, videos),
        Row { ptus: 1, ..refused("1 PTU, 5 % refused for 43 ms", || vec![hurried_ptu()]) },
        refused("1 Standard, 5 % refused for 300 ms", || vec![hurried("a")]),
        Row {
            ptus: 1,
            ..refused("PTU + Standard, 5 % refused", || vec![hurried_ptu(), hurried("b")])
        },
        restarting("1 Standard, restarts of 0.3 s", || vec![slow("a")], &[0, 0]),
        restarting("2 Standard, restarts of 0.3 s", || vec![slow("a"), slow("b")], &[0, 1]),
    ]
}

fn standard(name: &str) -> Resource {
    Resource::new(name).deployment(unlimited())
}

fn three_standard() -> Vec<Resource> {
    ["a", "b", "c"].map(standard).into()
}

/// Refuses requests larger than the rest of a minute's tokens for a day; no flex, few videos.
fn two_limited() -> Vec<Resource> {
    ["a", "b"].map(limited).into()
}

fn limited_ptu() -> Vec<Resource> {
    let ptu = Ptu::new(1e8).refuses_above(100_000, DAY);
    vec![Resource::new("a").deployment(Deployment::ptu(MODEL, ptu)), limited("b")]
}

fn limited(name: &str) -> Resource {
    let quota = Standard::tokens_per_minute(100_000).requests_per_minute(100_000);
    let nothing = Standard::tokens_per_minute(1).refuses_by_size(Duration::from_secs(60));
    let deployment = Deployment::standard(MODEL, quota.refuses_by_size(DAY)).flex(nothing);
    Resource::new(name).deployment(deployment.media_per_minute(1))
}

fn failing(name: &str, share: f64) -> Resource {
    Resource::new(name).deployment(unlimited().fails(share, Fault::status(500)))
}

fn failing_ptu() -> Resource {
    let ptu = Deployment::ptu(MODEL, Ptu::new(1e8));
    Resource::new("a").deployment(ptu.fails(0.02, Fault::status(500)))
}

/// Refuses now and then, for less than `max_wait`.
fn hurried(name: &str) -> Resource {
    let fault = Fault::refusal(Refusal::Tokens).retry_after(Duration::from_millis(300));
    Resource::new(name).deployment(unlimited().fails(0.05, fault))
}

fn hurried_ptu() -> Resource {
    let fault = Fault::refusal(Refusal::Utilization).retry_after(Duration::from_millis(43));
    Resource::new("a").deployment(Deployment::ptu(MODEL, Ptu::new(1e8)).fails(0.05, fault))
}

fn refusing_connections(name: &str) -> Resource {
    standard(name).outage(Outage::share(0.01)).closes_connections()
}

/// Answers after 8 s.
fn slow(name: &str) -> Resource {
    let pace = Pace { first_token: Duration::from_secs(8), per_token: Duration::ZERO };
    Resource::new(name).deployment(unlimited().pace(pace))
}

fn unlimited() -> Deployment {
    Deployment::standard(MODEL, Standard::unlimited())
}

pub(crate) const MODEL: &str = "gpt-4o";
pub(crate) const CHAT: &str = "/openai/v1/chat/completions";
const VIDEOS: &str = "/openai/v1/videos";
/// Makes every deployment answer 500.
pub(crate) const POISON: &str = "POISON";
const POISON_BODY: &str = r#"{"model":"gpt-4o","messages":[{"role":"user","content":"POISON"}]}"#;
const HUGE_BODY: &str =
    r#"{"model":"gpt-4o","messages":[{"role":"user","content":"Hello"}],"max_tokens":200000}"#;
const FLEX_BODY: &str =
    r#"{"model":"gpt-4o","messages":[{"role":"user","content":"Hello"}],"service_tier":"flex"}"#;
const VIDEO_BODY: &str = r#"{"model":"gpt-4o","prompt":"a tide"}"#;
const DAY: Duration = Duration::from_secs(86_400);
/// When resources restart: between two requests of a caller at ten per second.
pub(crate) const RESTARTS: [Duration; 2] =
    [Duration::from_millis(3_050), Duration::from_millis(7_050)];
/// How long a restart takes.
pub(crate) const RESTART: Duration = Duration::from_millis(300);
