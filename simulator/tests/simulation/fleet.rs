//! Processes that share their gate in a store do as well as one process.

use std::time::Duration;

use spillover_simulator::{Deal, Load, Policy, SimReport, Simulation};

use crate::{bars::load, run};

const STORE: Duration = Duration::from_millis(1);

fn overload(processes: usize) -> Simulation {
    load(Load::Poisson { rate: 48.0 }, 1.0 / 1.2, 4).processes(processes).deal(Deal::Random)
}

fn bursts(processes: usize) -> Simulation {
    load(Load::Bursty { rate: 40.0 }, 1.0, 6).processes(processes).deal(Deal::Random)
}

/// As few attempts and as little spill as one process has, and requests that spill do so at once.
fn assert_as_one(fleet: &Simulation, alone: &SimReport, most_attempts: f64) {
    let report = run(fleet, Policy::GateStanding);
    let attempts = report.attempts_per_success;
    assert!(attempts <= most_attempts, "attempts per success: {attempts}");
    let more = report.spilled_tokens - alone.spilled_tokens;
    assert!(more <= 0.001, "{} points more spill than with one process", 100.0 * more);
    let spilled = report.spilled_added_p50_ms.expect("some spilled");
    assert!(spilled <= 18.0, "requests that spill wait for {spilled} ms");
    let overtakes = report.overtakes - alone.overtakes;
    assert!(overtakes <= 0.005, "{} points more are overtaken", 100.0 * overtakes);
    let mean = report.added.mean / alone.added.mean;
    assert!(mean <= 1.4, "{mean} times the mean wait of one process");
}

#[test]
fn under_overload_any_number_of_processes_of_a_fleet_is_like_one() {
    let alone = run(&overload(1), Policy::GateStanding);
    // With so many, each one hears of the PTU once in five seconds.
    for processes in [4, 256] {
        assert_as_one(&overload(processes).fleet(STORE), &alone, 1.10);
    }
    let apart = run(&overload(4), Policy::GateStanding);
    assert!(apart.attempts_per_success > 1.2, "it would not need a fleet: {apart:?}");
}

#[test]
fn in_bursts_any_number_of_processes_of_a_fleet_is_like_one() {
    let alone = run(&bursts(1), Policy::GateStanding);
    assert_as_one(&bursts(16).fleet(STORE), &alone, 1.05);
}

#[test]
fn a_store_that_is_far_costs_its_round_trip_and_nothing_else() {
    let far = overload(16).fleet(Duration::from_millis(20));
    let report = run(&far, Policy::GateStanding);
    assert!(report.attempts_per_success <= 1.12, "{}", report.attempts_per_success);
    let spilled = report.spilled_added_p50_ms.expect("some spilled");
    assert!(spilled <= 16.0 + 1.5 * 20.0, "requests that spill wait for {spilled} ms");
}

#[test]
fn while_the_store_does_not_answer_processes_do_as_without_a_fleet_and_no_longer() {
    let seconds = Duration::from_secs;
    let outage = overload(4).fleet(STORE).store_outage(seconds(60), seconds(20));
    let (with, apart) =
        (run(&outage, Policy::GateStanding), run(&overload(4), Policy::GateStanding));
    assert!(with.attempts_per_success < apart.attempts_per_success);
    // A twelfth of the time with twice the attempts.
    assert!(with.attempts_per_success <= 1.17, "{}", with.attempts_per_success);
    assert!(with.utilisation >= 0.99, "{}", with.utilisation);
}

#[test]
fn a_store_that_loses_its_data_costs_a_few_attempts_once() {
    let forgets = overload(16).fleet(STORE).store_forgets(Duration::from_secs(60));
    let report = run(&forgets, Policy::GateStanding);
    assert!(report.attempts_per_success <= 1.10, "{}", report.attempts_per_success);
    assert!(report.worst_attempts <= 1.4, "in the worst ten seconds: {}", report.worst_attempts);
}

/// Those that are cut off try alone, each as often as a single process would.
#[test]
fn processes_that_lose_the_store_do_not_disturb_those_that_have_it() {
    let apart = run(&overload(4), Policy::GateStanding);
    let cut_off = overload(4).fleet(STORE).store_cut_off(0.5);
    let report = run(&cut_off, Policy::GateStanding);
    assert!(report.attempts_per_success < apart.attempts_per_success - 0.05, "{report:?}");
    assert!(report.spilled_tokens <= apart.spilled_tokens + 0.005, "{}", report.spilled_tokens);
}
