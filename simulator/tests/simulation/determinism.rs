//! The same seed gives the same figures, and all policies get the same requests.

use std::time::Duration;

use spillover_simulator::{Deal, Load, Simulation};

use crate::{POLICIES, run};

/// Covers everything that draws numbers: three regions, processes, both jitters.
fn mixed(seed: u64) -> Simulation {
    Simulation::new(Load::Bursty { rate: 10.0 })
        .length(Duration::from_secs(60))
        .warm_up(Duration::from_secs(5))
        .ptu_fraction(0.5)
        .bucket_seconds(1.0)
        .standard_rate(9_000.0)
        .processes(3)
        .deal(Deal::Random)
        .seed(seed)
}

#[test]
fn a_seed_gives_the_same_report_bit_by_bit() {
    for policy in POLICIES {
        let report = run(&mixed(7), policy);
        assert_eq!(report, run(&mixed(7), policy), "{policy}");
        assert_ne!(report.fates, run(&mixed(8), policy).fates, "{policy}");
    }
}

#[test]
fn runs_on_other_threads_do_not_disturb_each_other() {
    let alone = POLICIES.map(|policy| run(&mixed(3), policy));
    let together = std::thread::scope(|scope| {
        let start = |policy| scope.spawn(move || run(&mixed(3), policy));
        POLICIES.map(start).map(|thread| thread.join().expect("a run does not panic"))
    });
    assert_eq!(alone, together);
}

#[test]
fn every_policy_meets_the_same_requests() {
    let arrivals = POLICIES.map(|policy| {
        let fates = run(&mixed(5), policy).fates;
        fates.iter().map(|fate| (fate.arrived, fate.process)).collect::<Vec<_>>()
    });
    assert!(arrivals[0].len() > 300);
    assert!(arrivals.iter().all(|others| *others == arrivals[0]));
    let dealt = [0, 1, 2].map(|n| arrivals[0].iter().filter(|(_, process)| *process == n).count());
    assert!(dealt.iter().all(|count| *count > 60), "{dealt:?}");
}
