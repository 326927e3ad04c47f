//! The gate's requirements, measured through the real layers with fixed seeds.

use std::time::Duration;

use spillover_simulator::{Load, Policy, SimReport, Simulation, Trace};

use crate::run;

/// A PTU for 40 requests per second with a bucket of 10 s, which fills before the measurement.
pub(crate) fn load(load: Load, ptu_fraction: f64, minutes: u64) -> Simulation {
    Simulation::new(load)
        .ptu_fraction(ptu_fraction)
        .bucket_seconds(10.0)
        .length(Duration::from_secs(60 * minutes))
}

/// Required of the gate under any load, as long as the regions accept what it spills.
///
/// While a probe (an early attempt that checks the model) is on its way back refused, the request
/// behind it may be admitted. The standing queue of an overload has the most of these.
pub(crate) fn assert_polite(report: &SimReport, most_attempts: f64, most_overtakes: f64) {
    assert_spilling(report, most_attempts);
    assert!(report.overtakes <= most_overtakes, "overtakes: {}", report.overtakes);
    let late = report.last_dispatch_over_ms;
    assert!(late <= 1.0, "{late} ms past max_wait");
}

/// Required of the gate even if the regions refuse.
pub(crate) fn assert_spilling(report: &SimReport, most_attempts: f64) {
    let attempts = report.attempts_per_success;
    assert!(attempts <= most_attempts, "attempts per success: {attempts}");
    assert!(report.spilled_added_p50_ms.expect("some spilled") <= 50.0);
}

#[test]
fn lasting_overload_uses_the_ptu_in_full_asks_once_and_makes_nobody_wait_for_nothing() {
    for (times, attempts, mean, minutes) in [(1.2, 1.15, 280.0, 12), (2.0, 1.10, 140.0, 4)] {
        let overload = load(Load::Poisson { rate: 40.0 * times }, 1.0 / times, minutes);
        let report = run(&overload, Policy::GateStanding);
        assert_polite(&report, attempts, 0.035);
        assert!(report.utilisation >= 0.995, "at {times}: {}", report.utilisation);
        assert!(report.added.mean <= mean, "at {times}: {}", report.added.mean);
    }
}

#[test]
fn bursts_spill_as_little_as_if_everything_were_known() {
    let bursts = load(Load::Bursty { rate: 32.0 }, 1.25, 20);
    let (gate, oracle) = (run(&bursts, Policy::Gate), run(&bursts, Policy::Oracle));
    // At 1.053 attempts: a PTU that never stands open for half a second while a request waits costs
    // a refusal every third of a second.
    assert_polite(&gate, 1.06, 0.02);
    let more = gate.spilled_tokens - oracle.spilled_tokens;
    assert!(more <= 0.002, "{} points more than the oracle", more * 100.0);
}

/// Needs a trace whose path is in `SPILLOVER_TRACE`; checks nothing if that is not set.
#[test]
fn a_real_trace_is_served_with_few_attempts_and_a_fraction_of_the_waiting() {
    let Ok(path) = std::env::var("SPILLOVER_TRACE") else { return };
    let text = std::fs::read_to_string(path).expect("the trace can be read");
    let trace = Trace::parse(&text).expect("the trace is well formed");
    for fraction in [0.7, 1.0] {
        let hour =
            Simulation::new(Load::Trace(trace.clone())).ptu_fraction(fraction).bucket_seconds(3.0);
        let reference = run(&hour, Policy::Reference);
        // A PTU for two requests per second, with almost always one waiting: a refusal every third
        // of a second, the price of never leaving it open for half a second, then costs one attempt
        // per three requests. A PTU charges nothing for a refusal. Without standing-queue control
        // the gate spills 0.22 points more at 0.7: more requests wait, and more of them time out.
        // With it 0.10 points more; other seeds, which only change delays, give -0.04 to 0.29.
        for (policy, attempts, more, mean) in
            [(Policy::Gate, 1.38, 0.0025, 0.34), (Policy::GateStanding, 1.36, 0.0012, 0.21)]
        {
            let gate = run(&hour, policy);
            let found = gate.attempts_per_success;
            assert!(found <= attempts, "{policy} at {fraction}: {found} attempts");
            let found = gate.spilled_tokens - reference.spilled_tokens;
            assert!(found <= more, "{policy} at {fraction}: {} points more", 100.0 * found);
            let found = gate.added.mean / reference.added.mean;
            assert!(found <= mean, "{policy} at {fraction}: {found} of the mean");
        }
    }
}
