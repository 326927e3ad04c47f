//! What is measured: which resources fail how, who asks how often, and what must hold.

use std::time::Duration;

use spillover_emulator::{Deployment, Fault, Outage, Pace, Ptu, Resource, Standard};

/// One line of the table.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// The resources, of which the first are the PTU tier.
    pub(crate) resources: fn() -> Vec<Resource>,
    pub(crate) ptus: usize,
    /// The model's settings with failover; without, no failure moves on.
    pub(crate) failover: &'static str,
    pub(crate) healthy_per_second: u32,
    /// Requests that every deployment answers with 500. They are not counted.
    pub(crate) poisoned_per_second: u32,
    pub(crate) lasts: Duration,
    /// Which resource restarts at each of [`RESTARTS`].
    pub(crate) restarts: &'static [usize],
    pub(crate) bar: Bar,
}

/// What must hold besides: with failover no less is served than without.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Bar {
    None,
    /// At least this share is served.
    Share(f64),
    /// No more is lost than was under way at a resource that restarted.
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
        poisoned_per_second: 0,
        lasts,
        restarts: &[],
        bar: Bar::None,
    };
    let poisoned = |name, per_second| Row {
        poisoned_per_second: 1,
        lasts: 2 * lasts,
        bar: Bar::Share(0.99),
        ..row(name, || vec![standard("a"), standard("b"), standard("c")], per_second)
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
        poisoned("3 Standard, poison 1/s", 20),
        poisoned("3 Standard, poison 1/s, quiet", 1),
        restarting("1 Standard, restarts of 0.3 s", || vec![slow("a")], &[0, 0]),
        restarting("2 Standard, restarts of 0.3 s", || vec![slow("a"), slow("b")], &[0, 1]),
    ]
}

fn standard(name: &str) -> Resource {
    Resource::new(name).deployment(unlimited())
}

fn failing(name: &str, share: f64) -> Resource {
    Resource::new(name).deployment(unlimited().fails(share, Fault::status(500)))
}

fn failing_ptu() -> Resource {
    let ptu = Deployment::ptu(MODEL, Ptu::new(1e8));
    Resource::new("a").deployment(ptu.fails(0.02, Fault::status(500)))
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
/// When resources restart: between two requests of a caller who sends ten a second.
pub(crate) const RESTARTS: [Duration; 2] =
    [Duration::from_millis(3_050), Duration::from_millis(7_050)];
/// How long a resource is away that restarts.
pub(crate) const RESTART: Duration = Duration::from_millis(300);
