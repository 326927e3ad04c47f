//! After a burst, the gate sends every request immediately and once.

use std::{ops::Range, time::Duration};

use spillover_simulator::{Fate, Load, Policy, SimReport};

use crate::{bars::load, run};

/// Attempts per success of the requests that arrive in these periods.
fn attempts_within(report: &SimReport, stretches: &[Range<Duration>]) -> f64 {
    let within = report.fates.iter().filter(|request| {
        let next = stretches.partition_point(|stretch| stretch.end <= request.arrived);
        stretches.get(next).is_some_and(|stretch| stretch.contains(&request.arrived))
    });
    let (attempts, served) = within.fold((0, 0), |(attempts, served), request| {
        (attempts + request.attempts, served + u32::from(request.fate != Fate::Refused))
    });
    assert!(served > 200, "{served} requests are too few to tell");
    f64::from(attempts) / f64::from(served)
}

#[test]
fn a_second_after_a_burst_nearly_every_request_is_sent_once() {
    let bursts = load(Load::Bursty { rate: 40.0 }, 1.0, 4);
    let ends = bursts.bursts().expect("a good rate");
    let next = ends.iter().skip(1).map(|burst| burst.start).chain([Duration::MAX]);
    // From one second after a burst until the next one, and the first two seconds of that, when the
    // queue of the burst is longest.
    let calm: Vec<_> = (ends.iter().map(|burst| burst.end + SECOND).zip(next))
        .filter(|(from, to)| from < to)
        .map(|(from, to)| from..to)
        .collect();
    let first = |calm: &Range<Duration>| calm.start..calm.end.min(calm.start + 2 * SECOND);
    let first: Vec<_> = calm.iter().map(first).collect();
    let within = |policy| {
        let report = run(&bursts, policy);
        [&calm, &first].map(|stretches| attempts_within(&report, stretches))
    };
    for policy in [Policy::Gate, Policy::GateStanding] {
        let attempts = within(policy);
        assert!(attempts.iter().all(|attempts| *attempts <= 1.2), "{policy}: {attempts:?}");
    }
    let reference = within(Policy::Reference);
    assert!(reference[1] > 5.0, "those who wait keep asking: {reference:?}");
}

const SECOND: Duration = Duration::from_secs(1);
