//! The effect of each setting, and the properties of every world.

use std::time::Duration;

use spillover_simulator::{
    Budget, Ending, Fate, Hints, Lives, Load, MaxTokens, Neighbour, Others, Outage, Policy,
    RequestClass, SimReport, Simulation, Trace, Verdict, WhenRefused, World,
};

use crate::run;

/// Ten requests per second in bursts on a PTU sized for them, for two minutes.
fn bursts() -> Simulation {
    Simulation::new(Load::Bursty { rate: 10.0 })
        .ptu_fraction_of_drawn(1.0)
        .bucket_seconds(3.0)
        .warm_up(Duration::ZERO)
        .length(seconds(120))
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn spilling(simulation: &Simulation) -> SimReport {
    run(simulation, Policy::SpillFirst)
}

#[test]
fn every_world_is_the_same_for_a_seed_and_brings_every_policy_the_same_requests() {
    let at = |second| (seconds(second), 2_000, 300);
    let trace = Trace::new((0..30).map(at));
    let worlds = World::all(Some(&trace));
    assert!(worlds.len() > 45, "{}", worlds.len());
    for World { name, simulation, .. } in worlds {
        let short = simulation.length(seconds(8));
        let met = |policy| {
            let report = run(&short, policy);
            assert_eq!(report, run(&short, policy), "{name}: {policy}");
            report.fates.iter().map(|fate| fate.arrived).collect::<Vec<_>>()
        };
        let arrivals = [Policy::SpillFirst, Policy::GateStanding, Policy::Oracle].map(met);
        assert!(arrivals.iter().all(|others| *others == arrivals[0]), "{name}");
    }
}

#[test]
fn a_ptu_reckons_with_what_is_stated_or_with_what_it_assumes() {
    let beside = |max_tokens| spilling(&bursts().max_tokens(max_tokens)).spilled_tokens;
    let exact = beside(MaxTokens::Times(1.0));
    let large = beside(MaxTokens::Constant(4_000));
    assert!(large > exact + 0.05, "{large} and {exact}");
    assert_eq!(beside(MaxTokens::Unstated(4_000)), large, "a caller without a gate states nothing");
    let assumed_little = beside(MaxTokens::Unstated(16));
    assert!(assumed_little < large - 0.05, "{assumed_little} and {large}");
}

#[test]
fn what_is_cached_costs_the_ptu_nothing() {
    let on = |cached| {
        let load = Simulation::new(Load::Poisson { rate: 10.0 }).ptu_rate(10.0 * 1_900.0);
        spilling(&load.bucket_seconds(1.0).length(seconds(120)).cached(cached))
    };
    let (fresh, cached) = (on(0.0), on(0.9));
    assert!(fresh.utilisation > 0.9 && cached.utilisation < 0.6, "{}", cached.utilisation);
    assert!(cached.spilled_tokens < fresh.spilled_tokens / 3.0);
    let load = Simulation::new(Load::Poisson { rate: 10.0 }).ptu_rate(10.0 * 1_900.0);
    let half = load.bucket_seconds(1.0).length(seconds(120)).cached(0.9).cache_hits(0.5);
    let half = spilling(&half).utilisation;
    assert!(half > cached.utilisation + 0.1 && half < fresh.utilisation - 0.1, "{half}");
}

#[test]
fn hints_that_say_too_much_make_the_reference_rule_spill_and_those_of_none_make_it_ask_seldom() {
    let told = |hints| run(&bursts().hints(hints), Policy::Reference);
    let native = spilling(&bursts()).spilled_tokens;
    let long = told(Hints::Constant(seconds(5)));
    assert_eq!(long.spilled_tokens, native, "5 s are more than max_wait");
    let exact = told(Hints::Exact);
    let short = told(Hints::Constant(Duration::from_millis(40)));
    assert!(short.attempts_per_success > 1.2 * exact.attempts_per_success);
    for fewer in [Hints::WholeSeconds, Hints::Missing] {
        let report = told(fewer);
        assert!(report.attempts_per_success < exact.attempts_per_success, "{fewer:?}");
    }
    let open = told(Hints::WholeSeconds).longest_open.expect("it was watched");
    assert!(open.longest_ms > 500.0 && open.violations > 0, "{open:?}");
    let open = exact.longest_open.expect("it was watched");
    assert!(open.longest_ms < 500.0 && open.violations == 0, "{open:?}");
    let lies = told(Hints::False { share: 0.1, from: seconds(5), to: seconds(17) });
    assert!(lies.spilled_tokens > exact.spilled_tokens + 0.003);
}

#[test]
fn a_neighbour_takes_its_share_and_more_when_it_hammers() {
    let own = bursts().ptu_fraction_of_drawn(2.0);
    let beside = |when_refused| {
        let neighbour = Neighbour { share: 0.5, is_bursty: true, when_refused, stays: None };
        spilling(&own.clone().neighbour(neighbour)).spilled_tokens
    };
    let alone = spilling(&own).spilled_tokens;
    let (drops, hammers) = (beside(WhenRefused::Drops), beside(WhenRefused::Hammers));
    assert!(drops > alone + 0.01 && hammers > drops + 0.01, "{alone} {drops} {hammers}");
    let oracle = |load: &Simulation| run(load, Policy::Oracle).spilled_tokens;
    let neighbour =
        Neighbour { share: 0.5, is_bursty: true, when_refused: WhenRefused::Hammers, stays: None };
    assert_eq!(oracle(&own), oracle(&own.clone().neighbour(neighbour)), "it has the PTU alone");
}

#[test]
fn clients_of_two_kinds_spill_more_than_if_all_stated_exactly_and_less_than_if_none_did() {
    let spilled = |max_tokens| spilling(&bursts().max_tokens(max_tokens)).spilled_tokens;
    let mixed = |share| spilled(MaxTokens::Mixed { share, times: 16.0 });
    assert_eq!(mixed(0.0), spilled(MaxTokens::Times(1.0)));
    assert_eq!(mixed(1.0), spilled(MaxTokens::Times(16.0)));
    assert!(mixed(0.0) + 0.02 < mixed(0.5) && mixed(0.5) + 0.02 < mixed(1.0), "{}", mixed(0.5));
}

#[test]
fn a_neighbour_that_comes_for_a_time_is_felt_only_then() {
    let stays = Some((seconds(40), seconds(40)));
    let neighbour =
        Neighbour { share: 1.5, is_bursty: false, when_refused: WhenRefused::Drops, stays };
    let steady = Simulation::new(Load::Poisson { rate: 10.0 }).ptu_fraction(2.0);
    let steady = steady.bucket_seconds(1.0).warm_up(Duration::ZERO).length(seconds(120));
    let report = spilling(&steady.neighbour(neighbour));
    let spilled = |from: u64, to: u64| {
        let is_spilled = |fate: &&spillover_simulator::RequestReport| {
            (seconds(from)..seconds(to)).contains(&fate.arrived)
                && !matches!(fate.fate, Fate::Served(spillover_simulator::Server::Ptu, _))
        };
        report.fates.iter().filter(is_spilled).count()
    };
    assert_eq!((spilled(0, 40), spilled(90, 120)), (0, 0));
    assert!(spilled(40, 80) > 100, "{} of about 400", spilled(40, 80));
}

#[test]
fn a_part_of_the_ptu_may_state_its_hints_differently() {
    let pair = bursts().parts([0.5, 0.5]);
    let of = |simulation: &Simulation| run(simulation, Policy::Reference);
    let (alike, apart) = (of(&pair), of(&pair.clone().hints_of(1, Hints::Missing)));
    assert!(apart.attempts_per_success < alike.attempts_per_success);
    assert!(
        apart.attempts_per_success > of(&pair.clone().hints(Hints::Missing)).attempts_per_success
    );
    assert!(pair.clone().hints_of(2, Hints::Exact).run(Policy::SpillFirst).is_err(), "two parts");
}

#[test]
fn messages_that_stall_take_longer_and_the_others_do_not() {
    let idle = bursts().ptu_fraction_of_drawn(20.0);
    let slow = |share| {
        let report = spilling(&idle.clone().stalls(share, seconds(2)));
        let of = |fate: &spillover_simulator::RequestReport| match fate.fate {
            Fate::Served(_, added) => added > seconds(1),
            _ => panic!("all are served"),
        };
        report.fates.iter().filter(|fate| of(fate)).count() as f64 / report.requests as f64
    };
    assert_eq!((slow(0.0), slow(1.0)), (0.0, 1.0));
    assert!((slow(0.1) - 0.1).abs() < 0.03, "{}", slow(0.1));
}

#[test]
fn who_competes_has_more_of_the_ptu_beside_one_that_hammers_and_no_more_when_alone() {
    let own = bursts().ptu_fraction_of_drawn(2.0);
    let gates = |load: &Simulation| {
        [Policy::GateStanding, Policy::GateCompete].map(|policy| run(load, policy).spilled_tokens)
    };
    let neighbour =
        Neighbour { share: 0.5, is_bursty: true, when_refused: WhenRefused::Hammers, stays: None };
    let [yields, competes] = gates(&own.clone().length(seconds(300)).seed(3).neighbour(neighbour));
    assert!(competes < yields - 0.01, "{competes} and {yields}");
    let [yields, competes] = gates(&own);
    assert_eq!(yields, competes, "nobody else is there");
}

#[test]
fn an_outage_serves_nobody_and_is_told_of() {
    for outage in [Outage::Silent, Outage::Unavailable, Outage::Down] {
        let out = bursts().length(seconds(170)).ptu_fraction_of_drawn(2.0);
        let out = out.outage(seconds(100), seconds(60), outage);
        for policy in [Policy::Reference, Policy::GateStanding, Policy::Oracle] {
            let report = run(&out, policy);
            let within = report.fates.iter().filter(|request| match request.fate {
                Fate::Served(spillover_simulator::Server::Ptu, added) => {
                    (seconds(100)..seconds(160)).contains(&(request.arrived + added))
                }
                _ => false,
            });
            assert_eq!(within.count(), 0, "{policy} {outage:?}");
            assert_eq!(report.refused, 0.0, "{policy} {outage:?}");
            assert!(report.spilled_requests > 0.1, "{policy} {outage:?}");
        }
        let told = spilling(&out).outages;
        assert_eq!(told.len(), 1);
        assert!(told[0].added_p95_ms < 70.0, "it waits for nothing: {told:?}");
        assert!(told[0].noticed_after_ms.expect("it asks at once") < 1_500.0, "{told:?}");
    }
}

#[test]
fn slow_refusals_and_long_ways_take_their_time() {
    let spilled = |simulation: Simulation| {
        spilling(&simulation).spilled_added_p50_ms.expect("some are refused")
    };
    let (usual, far) = (spilled(bursts()), spilled(bursts().round_trip(seconds(1))));
    assert!((40.0..55.0).contains(&usual), "{usual}");
    assert!((1_400.0..1_650.0).contains(&far), "{far}");
    let slow = spilled(bursts().refusal_time(seconds(2)));
    assert!((2_040.0..2_055.0).contains(&slow), "{slow}");
}

#[test]
fn a_crash_loses_what_waits_and_a_stop_nothing() {
    let lives = |ending| Lives { lasts: seconds(20), pause: seconds(5), ending };
    let ended = |ending| run(&bursts().processes(2).lives(lives(ending)), Policy::Reference);
    let (stops, crashes) = (ended(Ending::Stops), ended(Ending::Crashes));
    assert_eq!(stops.refused, 0.0);
    assert!(crashes.refused > 0.001 && crashes.refused < 0.1, "{}", crashes.refused);
    assert_eq!(stops.requests, crashes.requests);
    let places = |report: &SimReport| {
        report.fates.iter().filter(|fate| fate.process == 0).count() as f64 / report.requests as f64
    };
    assert!((places(&stops) - 0.5).abs() < 0.1, "while one is away the other has all");
}

#[test]
fn a_resized_ptu_serves_as_its_size_is() {
    let overload = Simulation::new(Load::Poisson { rate: 20.0 })
        .ptu_fraction(0.5)
        .bucket_seconds(1.0)
        .length(seconds(200));
    for policy in [Policy::SpillFirst, Policy::Oracle] {
        let served = |simulation: &Simulation| 1.0 - run(simulation, policy).spilled_tokens;
        let usual = served(&overload);
        let halved = served(&overload.clone().resize(seconds(100), 0.5));
        assert!((halved / usual - 0.75).abs() < 0.03, "{policy}: {halved} of {usual}");
        let report = run(&overload.clone().resize(seconds(100), 0.5), policy);
        assert!(report.utilisation > 0.97, "{policy}: {}", report.utilisation);
    }
}

#[test]
fn a_ptu_in_parts_serves_about_as_much_as_a_whole_one() {
    let (whole, parts) = (bursts(), bursts().parts([0.5, 0.3, 0.2]));
    for policy in [Policy::SpillFirst, Policy::GateStanding] {
        let (whole, parts) = (run(&whole, policy), run(&parts, policy));
        let more = parts.spilled_tokens - whole.spilled_tokens;
        assert!(more.abs() < 0.05, "{policy}: {more}");
    }
}

#[test]
fn classes_wait_as_long_as_each_may() {
    let class = |name, rank, max_wait| RequestClass { name, share: 0.5, rank, max_wait };
    let overload = bursts().class(class("urgent", 0, Duration::from_millis(500))).class(class(
        "patient",
        1,
        seconds(10),
    ));
    for policy in [Policy::Reference, Policy::GateStanding] {
        let report = run(&overload, policy);
        let [urgent, patient] = &report.classes[..] else { panic!("two classes: {report:?}") };
        assert_eq!(urgent.requests + patient.requests, report.requests);
        assert!(urgent.added.p99 < 700.0, "{policy}: {}", urgent.added.p99);
        assert!(patient.added.p99 > 2_000.0, "{policy}: {}", patient.added.p99);
        assert!(report.last_dispatch_over_ms <= 50.0, "{policy}: beside its own max_wait");
    }
}

#[test]
fn a_spent_budget_refuses_and_what_nobody_served_is_no_gain() {
    let budget = Budget { tokens: 100_000, window: seconds(60), waits: false };
    let report = run(&bursts().budget(budget), Policy::GateStanding);
    assert!(report.refused > 0.05, "{}", report.refused);
    assert!(report.spilled_tokens_a_minute < 120_000.0, "{}", report.spilled_tokens_a_minute);
    assert!(report.beside_ptu > report.spilled_tokens + 0.03);
    let free = run(&bursts(), Policy::GateStanding);
    assert_eq!(free.beside_ptu, free.spilled_tokens);
}

#[test]
fn loads_change_with_the_time() {
    let count = |load, from: u64, to: u64| {
        let all = Simulation::new(load).warm_up(Duration::ZERO).length(seconds(400));
        let report = run(&all, Policy::Oracle);
        let within = |at: &Duration| (seconds(from)..seconds(to)).contains(at);
        let arrived = report.fates.iter().map(|fate| fate.arrived).filter(within);
        arrived.count() as f64 / (to - from) as f64
    };
    let day = || Load::Day { rate: 20.0, period: seconds(400) };
    assert!((count(day(), 80, 120) / 38.0 - 1.0).abs() < 0.15, "1.9 times the mean at noon");
    assert!(count(day(), 290, 310) < 4.0, "a tenth at midnight");
    let crowd =
        || Load::FlashCrowd { rate: 10.0, times: 5.0, at: seconds(100), lasts: seconds(50) };
    assert!((count(crowd(), 100, 150) / 50.0 - 1.0).abs() < 0.15);
    assert!((count(crowd(), 150, 400) / 10.0 - 1.0).abs() < 0.15);
    let volleys = || Load::Volleys { requests: 14, every: seconds(13) };
    assert_eq!(count(volleys(), 13, 26) * 13.0, 14.0);
    let wandering = |sigma, tick| Load::Wandering { rate: 10.0, sigma, tick: seconds(tick) };
    assert!((count(wandering(0.0, 0), 0, 400) / 10.0 - 1.0).abs() < 0.1, "Poisson");
    let minutes = |sigma| (0..6).map(move |minute| (sigma, 60 * minute));
    let spread = |sigma| {
        let of = |(sigma, from)| count(wandering(sigma, 0), from, from + 60);
        let counts: Vec<f64> = minutes(sigma).map(of).collect();
        counts.iter().copied().fold(0.0, f64::max) / counts.iter().copied().fold(99.0, f64::min)
    };
    assert!(spread(0.0) < 1.4 && spread(0.8) > 2.0, "{} {}", spread(0.0), spread(0.8));
    assert_eq!(count(wandering(0.2, 5), 1, 5), 0.0, "nothing is recorded between two ticks");
    let on_off = count(Load::OnOff { rate: 10.0 }, 0, 400);
    assert!((3.0..20.0).contains(&on_off), "{on_off}");
}

#[test]
fn event_streams_are_corrected_as_whole_answers_are() {
    let whole = spilling(&bursts()).spilled_tokens;
    let streamed = spilling(&bursts().streamed()).spilled_tokens;
    assert!((whole - streamed).abs() < 0.005, "{whole} and {streamed}");
}

/// The worlds of one process and no other application in which the PTU stands open for longer than
/// it may while a request waits, and the longest time found, in milliseconds.
const STANDS_OPEN: [(&str, f64); 4] = [
    // The result of an attempt is known after 300 ms, and the next attempts are based on it.
    ("round-trip-300", 1_700.0),
    // The same with 2 s. A request that has waited for half of its time is not even sent: it could
    // not spill in time if it were refused.
    ("refusals-2s", 3_700.0),
    // The gate models several PTUs as one bucket.
    ("pool-of-three", 2_200.0),
    ("pair-one-in-seconds", 1_300.0),
];

#[test]
fn the_ptu_never_stands_open_for_half_a_second_while_a_request_waits() {
    for world in World::all(None).iter().filter(|world| !world.is_contended()) {
        let brief = |length| world.simulation.clone().length(seconds(length)).seed(3);
        let (requests, ..) = brief(100).offered().expect("settings that work");
        let report = run(&brief(if requests > 2_000 { 10 } else { 100 }), Policy::GateStanding);
        let open = report.longest_open.expect("it was watched");
        let known = STANDS_OPEN.iter().find(|(name, _)| *name == world.name);
        let most = known.map_or(open.limit_ms, |(_, most)| *most);
        assert!(open.longest_ms <= most, "{}: {} ms", world.name, open.longest_ms);
    }
}

/// The known requirements that the gate does not meet in one world of a sample of the matrix, and
/// the largest figure found. The sample is five minutes of one seed, whose base is close to the
/// mean of many.
type Known = (&'static str, &'static [(&'static str, f64)]);

fn assert_nothing_new(sample: &[Known]) {
    let worlds = World::all(None);
    for (name, known) in sample {
        let world = worlds.iter().find(|world| world.name == *name).expect("it is one of them");
        let brief = world.simulation.clone().length(seconds(300)).seed(3);
        let (native, reference) = (spilling(&brief), run(&brief, Policy::Reference));
        let others =
            Others { native: Some(&native), reference: Some(&reference), ..Others::default() };
        for Verdict { asked, found, holds, .. } in
            world.judge(&run(&brief, Policy::GateStanding), &others)
        {
            let is_known = known.iter().any(|&(known, most)| asked == known && found <= most);
            assert!(holds || is_known, "{name}: {asked}: {found}");
        }
    }
}

#[test]
fn nothing_new_is_wrong_with_the_gate_where_it_knows_less_of_costs_and_hints() {
    assert_nothing_new(&[
        ("base", &[]),
        ("max-tokens-4000", &[]),
        ("max-tokens-unstated", &[]),
        ("hints-false-8", &[]),
        ("hints-5s", &[]),
        ("hints-none", &[]),
        ("mixed-x16", &[]),
    ]);
}

#[test]
fn nothing_new_is_wrong_with_the_gate_where_others_ways_and_pauses_mislead_it() {
    assert_nothing_new(&[
        // Yielding is the default: after losing openings the gate leaves the next ones to the other
        // application, which drops refused requests and does not use them.
        ("neighbour-drops", &[("tokens <= native +0.1", 1.5), ("open <= 500 ms", 2_600.0)]),
        // The result of an attempt is known after 300 ms, and the next attempts are based on it.
        ("round-trip-300", &[("open <= 750 ms", 1_700.0), ("tokens <= reference -0.7", 0.2)]),
        ("volleys-x1", &[]),
        // 14 simultaneous requests find an idle PTU, which admits all that arrive before it exceeds
        // 100 %: one large request more or less makes several points.
        ("volleys-x4", &[("tokens <= reference +0.5", 2.5), ("tokens <= reference +0", 2.5)]),
    ]);
}
