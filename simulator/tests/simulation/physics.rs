//! Figures that follow from the model, and those of known policies.

use std::time::Duration;

use spillover_simulator::{
    Fate, Load, Policy, RequestReport, Server, SimReport, Simulation, Trace,
};

use crate::{POLICIES, poisson, run};

#[test]
fn a_ptu_with_room_serves_everybody_at_once() {
    let half = Simulation::new(Load::Poisson { rate: 40.0 })
        .ptu_fraction(2.0)
        .warm_up(Duration::from_secs(10))
        .length(Duration::from_secs(60));
    for policy in [Policy::SpillFirst, Policy::Reference, Policy::Shared, Policy::Oracle] {
        let report = run(&half, policy);
        assert_eq!((report.spilled_requests, report.attempts_per_success), (0.0, 1.0), "{policy}");
        assert!((0.45..0.55).contains(&report.utilisation), "{policy}: {}", report.utilisation);
        let way = if policy == Policy::Oracle { 0.0..=0.0 } else { 12.0..=19.0 };
        assert!(way.contains(&report.added.p99), "half a round trip: {}", report.added.p99);
    }
}

#[test]
fn overload_spills_what_does_not_fit_whoever_decides() {
    for times in [1.2, 2.0] {
        let load = poisson(times).length(Duration::from_secs(120));
        for policy in [Policy::SpillFirst, Policy::Oracle] {
            let report = run(&load, policy);
            let excess = 1.0 - 1.0 / times;
            assert!(
                (report.spilled_tokens - excess).abs() < 0.03,
                "{policy} at {times}: {report:?}"
            );
            assert!(report.utilisation > 0.99, "{policy} at {times}: {}", report.utilisation);
        }
    }
}

#[test]
fn the_reference_script_asks_tens_of_times_and_makes_the_spilled_wait() {
    let load = poisson(1.2);
    let reference = run(&load, Policy::Reference);
    assert!((20.0..40.0).contains(&reference.attempts_per_success), "{reference:?}");
    let spilled = reference.spilled_added_p50_ms.expect("some spilled");
    assert!((3_980.0..4_070.0).contains(&spilled), "after max_wait: {spilled}");
    assert!(reference.overtakes > 0.3, "newcomers win: {}", reference.overtakes);
    let spilling = run(&load, Policy::SpillFirst);
    let (once, spilled) = (spilling.attempts_per_success, spilling.spilled_added_p50_ms);
    assert!((once - 1.0 - spilling.spilled_requests).abs() < 1e-9, "one refusal each");
    assert!((40.0..55.0).contains(&spilled.expect("some spilled")), "one round trip and a half");
    assert_eq!(spilling.overtakes, 0.0, "nobody waits");
}

#[test]
fn waiting_spills_less_than_spilling_first_in_bursts_and_the_oracle_least() {
    let bursts = Simulation::new(Load::Bursty { rate: 20.0 })
        .length(Duration::from_secs(150))
        .bucket_seconds(3.0);
    let [first, reference, oracle] = [Policy::SpillFirst, Policy::Reference, Policy::Oracle]
        .map(|policy| run(&bursts, policy).spilled_tokens);
    assert!(first > reference && reference > oracle, "{first} > {reference} > {oracle}");
}

#[test]
fn nobody_is_lost_and_counts_add_up() {
    let limited = poisson(2.0)
        .standard_rate(6_000.0)
        .warm_up(Duration::from_secs(3))
        .length(Duration::from_secs(7));
    for policy in POLICIES {
        let report = run(&limited, policy);
        let of = |keep: fn(&Fate) -> bool| {
            report.fates.iter().filter(|request| keep(&request.fate)).count() as f64
        };
        let requests = report.requests as f64;
        let spilled = of(|fate| matches!(fate, Fate::Served(Server::Standard(_), _)));
        let refused = of(|fate| *fate == Fate::Refused);
        assert_eq!(report.fates.len(), report.requests);
        assert!((report.spilled_requests - spilled / requests).abs() < 1e-9, "{policy}");
        assert!((report.refused - refused / requests).abs() < 1e-9, "{policy}");
        let attempts: u32 = report.fates.iter().map(|request| request.attempts).sum();
        let each = f64::from(attempts) / (requests - refused);
        assert!((report.attempts_per_success - each).abs() < 1e-9, "{policy}");
        if policy == Policy::Reference {
            assert!(report.refused > 0.1, "one region is not enough, and it asks no other");
        }
        let arrived: usize = report.slots.iter().map(|slot| slot.arrived).sum();
        assert_eq!(arrived, report.requests, "{policy}");
    }
}

/// The oracle's queue is in order and its waits reach max_wait but not more; standing-queue control
/// shortens them.
#[test]
fn the_oracle_admits_in_order_and_nobody_after_max_wait() {
    let load = poisson(1.5).max_wait(Duration::from_millis(1_500));
    let report = run(&load, Policy::Oracle);
    let admitted = |request: &RequestReport| match request.fate {
        Fate::Served(Server::Ptu, added) => Some((request.arrived + added, added)),
        _ => None,
    };
    let admitted: Vec<_> = report.fates.iter().filter_map(admitted).collect();
    assert!(admitted.len() > 500);
    assert!(admitted.is_sorted_by_key(|(at, _)| *at));
    let longest = admitted.iter().map(|(_, added)| *added).max().expect("some are admitted");
    assert!(longest <= Duration::from_millis(1_500));
    assert!(longest > Duration::from_millis(1_400), "it waits as long as it may: {longest:?}");
    let controlled = run(&load.standing(Duration::from_secs(1)), Policy::OracleStanding);
    assert!(controlled.added.mean < report.added.mean / 3.0, "{}", controlled.added.mean);
    assert!((controlled.spilled_tokens - report.spilled_tokens).abs() < 0.03);
}

/// 3 requests of 1,000 + 3 x 0 tokens arrive at a PTU of 1,000 tokens per second, bucket 1 s.
#[test]
fn a_trace_is_worked_off_as_reckoned_by_hand() {
    let at = |millis| (Duration::from_millis(millis), 1_000, 0);
    let trace = Trace::new([at(0), at(100), at(200), at(5_000)]);
    let simulation = Simulation::new(Load::Trace(trace)).ptu_rate(1_000.0).bucket_seconds(1.0);
    let added = |report: &SimReport| -> Vec<f64> {
        let added = |request: &RequestReport| match request.fate {
            Fate::Served(Server::Ptu, added) => added.as_secs_f64() * 1e3,
            _ => -1.0,
        };
        report.fates.iter().map(added).collect()
    };
    // The first fills the bucket, which has drained to 900 at 100 ms and holds 1,900 after the
    // second: 1,800 at 200 ms, so the third waits until 1,000 ms.
    let oracle = added(&run(&simulation, Policy::Oracle));
    assert_eq!(
        oracle.iter().map(|added| added.round()).collect::<Vec<_>>(),
        [0.0, 0.0, 800.0, 0.0]
    );
    let reference = run(&simulation, Policy::Reference);
    let third = added(&reference)[2];
    assert!((845.0..875.0).contains(&third), "800 ms and three ways more: {third}");
    assert_eq!(reference.attempts_per_success, 5.0 / 4.0);
    let spilled = run(&simulation.max_wait(Duration::from_millis(700)), Policy::Oracle);
    assert_eq!(added(&spilled)[2], -1.0, "it spills at once");
}

#[test]
fn settings_that_cannot_work_are_named() {
    let load = || Simulation::new(Load::Poisson { rate: 1.0 }).length(Duration::from_secs(1));
    for (simulation, field) in [
        (load().ptu_fraction(0.0), "ptu_fraction"),
        (load().ptu_rate(f64::NAN), "ptu_rate"),
        (load().bucket_seconds(-1.0), "bucket_seconds"),
        (load().processes(0), "processes"),
        (load().standard_rate(0.0), "standard_rate"),
        (Simulation::new(Load::Bursty { rate: 0.0 }), "rate"),
    ] {
        let error = simulation.run(Policy::Oracle).expect_err(field);
        assert_eq!(error.field(), field);
    }
}
