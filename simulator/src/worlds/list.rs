//! The list of worlds.
//!
//! The rig's results and the requirements derived from them come from other draws of the same
//! loads. A bar is therefore stated as a distance to what the reference rule spilled there.

use std::time::Duration;

use super::{
    Bar::{
        self, Asks, Attempts, Mean, MeanOfReference, Noticed, OutageP95, SpilledAMinute,
        SpilledP50, TokensOver, TokensOverOracle, TokensOverReference,
    },
    World, around, base,
};
use crate::{
    Budget, Ending, Hints, Lives, Load, MaxTokens, Neighbour, Outage, RequestClass, Simulation,
    Size, Sizes, Trace, WhenRefused,
};
use spillover_emulator::Pace;

pub(super) fn all(trace: Option<&Trace>) -> Vec<World> {
    let mut worlds = vec![World::new("base", "nothing", base()).rig([24.5, 21.6, 21.0, 19.6])];
    worlds.extend(unsure_costs());
    worlds.extend(hints());
    worlds.extend(neighbours());
    worlds.extend(processes());
    worlds.extend(ways());
    worlds.extend(outages());
    worlds.extend(loads());
    worlds.extend(sizes());
    worlds.extend(choices());
    worlds.extend(volleys());
    worlds.extend(strangers());
    worlds.extend(services());
    worlds.extend(trace.into_iter().flat_map(traces));
    worlds
}

/// The cost of a request is known late, or differs from the service's estimate.
fn unsure_costs() -> Vec<World> {
    let at_4000 = base().max_tokens(MaxTokens::Constant(4_000));
    // 256 tokens on average, one minute.
    let slow =
        Pace { first_token: Duration::from_millis(200), per_token: Duration::from_millis(234) };
    let overload = around(Load::Poisson { rate: 12.0 }).ptu_fraction_of_drawn(1.0 / 1.2);
    vec![
        World::new("max-tokens-4000", "max_tokens 4,000 beside answers of 200", at_4000.clone())
            .rig([38.6, 29.2, 42.9, 25.3])
            .bars([TokensOverReference(-1.7)]),
        World::new(
            "max-tokens-unstated",
            "no max_tokens, for which the service assumes 4,096; Poisson at 1.2",
            overload.max_tokens(MaxTokens::Unstated(4_096)),
        )
        .rig([36.2, 23.4, 53.6, 16.7])
        .bars([TokensOverReference(0.0)]),
        World::new(
            "minute-long-answers",
            "answers of a minute, max_tokens 4,000",
            at_4000.clone().pace(slow),
        )
        .rig([49.9, 42.4, 62.5, 39.1])
        .bars([TokensOverReference(-1.7)]),
        World::new(
            "max-tokens-exact",
            "max_tokens exact",
            base().max_tokens(MaxTokens::Times(1.0)),
        ),
        World::new(
            "max-tokens-x16",
            "max_tokens 16 times the answer",
            base().max_tokens(MaxTokens::Times(16.0)),
        ),
        World::new("streamed", "event streams with usage", base().streamed()),
        World::new(
            "streamed-untold",
            "event streams without usage",
            base().streamed().without_usage(),
        ),
        World::new(
            "reasoning-tail",
            "5 % of the answers are 20 times as long, at 15 ms a token",
            base()
                .sizes(Sizes { tail: Some((0.05, 20.0)), ..Sizes::default() })
                .pace(Pace { per_token: Duration::from_millis(15), ..slow }),
        ),
        World::new(
            "untold-4000",
            "event streams without usage, max_tokens 4,000",
            at_4000.clone().streamed().without_usage(),
        ),
        World::new(
            "sizes-apart",
            "sizes that differ a hundredfold",
            base().sizes(Sizes {
                prompt: Size { median: 800.0, sigma: 1.6 },
                output: Size { median: 200.0, sigma: 1.4 },
                tail: None,
            }),
        ),
        World::new("cached-70", "70 % of each prompt is cached, and free", base().cached(0.7))
            .rig([24.9, 22.0, 21.1, 19.9])
            .bars([TokensOverReference(-1.0), MeanOfReference(1.0)]),
    ]
}

/// At most this many attempts at the PTU for one request in four seconds. Required where hints are
/// no help. Elsewhere the gate sends probes that it expects to be refused, to check its model;
/// those do not count against a request.
const MAX_ASKS: Bar = Asks(8.0);

/// Hints are false, missing or rounded.
fn hints() -> Vec<World> {
    let seconds = Duration::from_secs;
    let false_ones =
        |share| base().hints(Hints::False { share, from: seconds(5), to: seconds(17) });
    let constant = |hint| base().hints(Hints::Constant(hint));
    vec![
        World::new("hints-false-8", "8 % of the hints are false: 5 to 17 s", false_ones(0.08))
            .rig([24.5, 23.5, 40.4, 0.0])
            .bars([TokensOverReference(1.0)]),
        World::new("hints-false-1", "1 % of the hints are false: 5 to 17 s", false_ones(0.01))
            .rig([24.5, 22.0, 23.4, 19.6])
            .bars([TokensOver("base", 0.2)]),
        World::new("hints-5s", "every hint says 5 s", constant(seconds(5)))
            .rig([24.5, 24.5, 33.2, 19.6])
            .bars([TokensOverReference(0.0), MAX_ASKS]),
        World::new(
            "hints-43ms",
            "every hint says 43 ms: mostly too short",
            constant(Duration::from_millis(43)),
        )
        .bars([MAX_ASKS]),
        World::new("hints-zero", "every hint says 0", constant(Duration::ZERO)).bars([MAX_ASKS]),
        World::new("hints-none", "429s without hints", base().hints(Hints::Missing))
            .bars([MAX_ASKS]),
        World::new(
            "hints-half-missing",
            "every second 429 is without a hint",
            base().hints(Hints::HalfMissing),
        ),
        World::new(
            "hints-whole-seconds",
            "hints in whole seconds, rounded up",
            base().hints(Hints::WholeSeconds),
        ),
    ]
}

/// Another application on the same PTU.
fn neighbours() -> Vec<World> {
    let neighbour =
        |share, is_bursty, when_refused| Neighbour { share, is_bursty, when_refused, stays: None };
    let beside = |is_bursty, when_refused| {
        base().ptu_fraction_of_drawn(2.0).neighbour(neighbour(0.5, is_bursty, when_refused))
    };
    vec![
        World::new(
            "neighbour-drops",
            "own load 0.5; another application takes 0.5 in bursts, and drops what is refused",
            beside(true, WhenRefused::Drops),
        )
        .rig([21.2, 7.4, 28.8, 0.8])
        .bars([TokensOverReference(6.6)]),
        World::new(
            "neighbour-hammers",
            "the same, which asks again by the reference rule",
            beside(true, WhenRefused::Hammers),
        )
        .rig([36.6, 9.0, 41.8, 0.8]),
        World::new(
            "neighbour-steady",
            "own load 0.5; another application takes 0.5 evenly, and drops what is refused",
            beside(false, WhenRefused::Drops),
        ),
        World::new(
            "neighbour-large",
            "own load 0.25; another application takes 0.75 in bursts, and drops what is refused",
            base().ptu_fraction_of_drawn(4.0).neighbour(neighbour(0.75, true, WhenRefused::Drops)),
        ),
        World::new(
            "neighbour-overloads",
            "own load 0.5; another application takes 1.2 in bursts, and drops what is refused",
            base().ptu_fraction_of_drawn(2.0).neighbour(neighbour(1.2, true, WhenRefused::Drops)),
        ),
    ]
}

/// Several independent processes.
fn processes() -> Vec<World> {
    let share = |processes| base().processes(processes);
    let bars = |attempts| [TokensOverReference(0.0), SpilledP50(20.0), Attempts(attempts)];
    let lives = |lasts, pause, ending| Lives {
        lasts: Duration::from_secs(lasts),
        pause: Duration::from_secs(pause),
        ending,
    };
    vec![
        World::new("processes-4", "4 processes on one PTU", share(4))
            .rig([25.5, 22.7, 21.8, 20.7])
            .bars(bars(1.2)),
        World::new("processes-16", "16 processes on one PTU", share(16))
            .rig([25.5, 22.7, 21.8, 20.7])
            .bars(bars(1.5)),
        World::new("processes-64", "64 processes on one PTU", share(64))
            .rig([25.5, 22.7, 22.1, 20.7]),
        World::new(
            "processes-8-small",
            "8 processes on a PTU of 4 requests/s",
            around(Load::Bursty { rate: 4.0 }).processes(8),
        ),
        World::new(
            "processes-come-and-go",
            "4 processes, of which each stops after 90 s, the next one 30 s later",
            share(4).lives(lives(90, 30, Ending::Stops)),
        ),
        World::new(
            "processes-crash",
            "4 processes, of which each crashes after 90 s, the next one 30 s later",
            share(4).lives(lives(90, 30, Ending::Crashes)),
        ),
        World::new(
            "process-crashes",
            "one process, which crashes every two minutes",
            share(1).lives(lives(120, 0, Ending::Crashes)),
        ),
    ]
}

/// A long round trip to the PTU, or slow refusals.
fn ways() -> Vec<World> {
    vec![
        World::new(
            "round-trip-300",
            "a round trip takes 300 ms",
            base().round_trip(Duration::from_millis(300)),
        )
        .rig([24.5, 21.7, 23.1, 19.6])
        .bars([TokensOverReference(-0.7)]),
        World::new(
            "refusals-2s",
            "a refusal takes 2 s to come back",
            base().refusal_time(Duration::from_secs(2)),
        )
        .rig([24.5, 22.6, 26.7, 19.6])
        .bars([TokensOverReference(0.0)]),
        World::new(
            "round-trip-5",
            "a round trip takes 5 ms",
            base().round_trip(Duration::from_millis(5)),
        ),
        World::new(
            "max-wait-200ms",
            "max_wait is 200 ms",
            base().max_wait(Duration::from_millis(200)),
        ),
        World::new("max-wait-30", "max_wait is 30 s", base().max_wait(Duration::from_secs(30)))
            .rig([0.0, 12.6, 14.9, 0.0]),
    ]
}

/// Outages of the PTU of two minutes.
fn outages() -> Vec<World> {
    let out = |outage| {
        let (at, lasts) = (Duration::from_secs(300), Duration::from_secs(120));
        base().ptu_fraction_of_drawn(2.0).outage(at, lasts, outage)
    };
    let bars = || [OutageP95(100.0), Noticed(1_000.0), MAX_ASKS];
    vec![
        World::new(
            "outage-429",
            "load 0.5; two minutes of 429 without a hint",
            out(Outage::Silent),
        )
        .rig([12.8, 12.5, 12.4, 12.4])
        .bars(bars()),
        World::new(
            "outage-503",
            "load 0.5; two minutes of 503 with retry-after: 5",
            out(Outage::Unavailable),
        )
        .rig([12.8, 12.8, 12.4, 12.4])
        .bars(bars()),
        World::new("outage-down", "load 0.5; two minutes without a connection", out(Outage::Down))
            .bars(bars()),
        World::new(
            "outage-43ms",
            "load 0.5; two minutes of 429 whose hints say 43 ms",
            out(Outage::Throttling(Duration::from_millis(43))),
        )
        .bars(bars()),
    ]
}

/// The load or the PTU changes over time.
fn loads() -> Vec<World> {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let crowd = Load::FlashCrowd { rate: 6.0, times: 4.0, at: minutes(5), lasts: minutes(1) };
    vec![
        World::new(
            "day",
            "a rate like a sine, from a tenth of the PTU to 1.9 times it",
            around(Load::Day { rate: 10.0, period: minutes(15) }),
        ),
        World::new(
            "flash-crowd",
            "four times the load for a minute; 0.7 of the PTU in all",
            around(crowd).ptu_fraction_of_drawn(1.0 / 0.7),
        ),
        World::new(
            "resize",
            "half of the PTU after 5 min, 1.5 times it after 10",
            base().resize(minutes(5), 0.5).resize(minutes(10), 1.5),
        ),
        World::new(
            "resize-each-minute",
            "half of the PTU and 1.5 times it by turns, a minute each",
            (1..15).fold(base(), |world, minute| {
                world.resize(minutes(minute), if minute % 2 == 1 { 0.5 } else { 1.5 })
            }),
        ),
    ]
}

/// Options: pools, limits, classes, budgets.
fn choices() -> Vec<World> {
    let overload = around(Load::Poisson { rate: 12.0 }).ptu_fraction_of_drawn(1.0 / 1.2);
    let class = |name, rank, max_wait| RequestClass { name, share: 0.5, rank, max_wait };
    let budget = Budget { tokens: 500_000, window: Duration::from_secs(60), waits: false };
    vec![
        World::new(
            "pool-of-three",
            "PTUs of 60, 30 and 10 % in three regions",
            base().parts([0.6, 0.3, 0.1]),
        ),
        World::new(
            "standard-limited",
            "three regions that grant as much as the load, together",
            base().standard_rate(10.0 * (1_101.7 + 1.5 * 255.5)),
        ),
        World::new(
            "classes",
            "Poisson at 1.2: half is urgent with max_wait 0.5 s, half patient with 30 s",
            overload.class(class("urgent", 0, Duration::from_millis(500))).class(class(
                "patient",
                1,
                Duration::from_secs(30),
            )),
        ),
        World::new(
            "spill-budget",
            "Poisson at 2.0, max_tokens 4,000, and a budget of 500,000 spilled tokens a minute",
            around(Load::Poisson { rate: 20.0 })
                .ptu_fraction_of_drawn(0.5)
                .max_tokens(MaxTokens::Constant(4_000))
                .budget(budget),
        )
        .bars([SpilledAMinute(450_000.0)]),
    ]
}

/// Large and small PTUs.
fn sizes() -> Vec<World> {
    // Shorter than the others: their attempts dominate the run time.
    let large = |rate, minutes: u64| {
        let length = Duration::from_secs(60 * minutes);
        around(Load::Bursty { rate }).bucket_seconds(10.0).length(length)
    };
    let bars = || [Attempts(1.05), SpilledP50(20.0)];
    vec![
        World::new("large-160", "160 requests/s, bucket 10 s", large(160.0, 8)).bars(bars()),
        World::new("large-400", "400 requests/s, bucket 10 s", large(400.0, 4)).bars(bars()),
        World::new("small-2", "2 requests/s", around(Load::Bursty { rate: 2.0 })),
        World::new(
            "small-2-long-hints",
            "2 requests/s, max_tokens 4,000: hints of seconds that are true",
            around(Load::Bursty { rate: 2.0 }).max_tokens(MaxTokens::Constant(4_000)),
        ),
        World::new(
            "larger-than-bucket",
            "a bucket of 0.1 s, which most requests fill alone",
            base().bucket_seconds(0.1),
        ),
    ]
}

/// Many requests at once, then a pause, as in the demonstration.
fn volleys() -> Vec<World> {
    let volleys = |max_tokens| {
        let load = Load::Volleys { requests: 14, every: Duration::from_secs(13) };
        let sizes = Sizes {
            prompt: Size { median: 20.0, sigma: 0.3 },
            output: Size { median: 230.0, sigma: 0.5 },
            tail: None,
        };
        around(load).ptu_rate(500.0).bucket_seconds(2.0).sizes(sizes).max_tokens(max_tokens)
    };
    let bars = || [SpilledP50(100.0), TokensOverReference(0.0)];
    vec![
        World::new(
            "volleys-x1",
            "14 requests at once every 13 s, PTU of 500 tokens/s, bucket 2 s, max_tokens exact",
            volleys(MaxTokens::Times(1.0)),
        )
        .bars(bars()),
        World::new(
            "volleys-x4",
            "the same, max_tokens 4 times the answer",
            volleys(MaxTokens::Times(4.0)),
        )
        .bars(bars()),
        World::new(
            "volleys-x16",
            "the same, max_tokens 16 times the answer",
            volleys(MaxTokens::Times(16.0)),
        )
        .bars(bars()),
        World::new(
            "volleys-unstated",
            "the same, no max_tokens, for which the service assumes 4,096",
            volleys(MaxTokens::Unstated(4_096)),
        )
        .bars(bars()),
    ]
}

/// Settings that other worlds lack, each of which has shown a fault of the gate or is its limit.
fn strangers() -> Vec<World> {
    let ms = Duration::from_millis;
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let far = base().round_trip(ms(150));
    let at_4000 = base().max_tokens(MaxTokens::Constant(4_000));
    let mixed = MaxTokens::Mixed { share: 0.5, times: 16.0 };
    let pair = base().parts([0.5, 0.5]).hints_of(1, Hints::WholeSeconds);
    let brief = Neighbour {
        share: 1.2,
        is_bursty: false,
        when_refused: WhenRefused::Drops,
        stays: Some((minutes(5), minutes(1))),
    };
    vec![
        World::new(
            "mixed-x16",
            "max_tokens is exact in half of the requests, and 16 times the answer in the others",
            base().max_tokens(mixed),
        )
        .bars([TokensOverReference(-3.0)]),
        World::new(
            "far-short",
            "max_wait is 500 ms, a round trip takes 150 ms, max_tokens 4,000",
            at_4000.max_wait(ms(500)).round_trip(ms(150)),
        ),
        World::new(
            "far-resize",
            "a round trip takes 150 ms; half of the PTU after 5 min",
            far.resize(minutes(5), 0.5),
        ),
        World::new(
            "pair-one-in-seconds",
            "two equal PTUs, of which one gives its hints in whole seconds",
            pair,
        ),
        World::new(
            "neighbour-minute",
            "load 0.7; another application takes 1.2 of the PTU for one minute",
            base().ptu_fraction_of_drawn(1.0 / 0.7).neighbour(brief),
        ),
        World::new(
            "stalls",
            "a round trip takes 80 ms, and 2 % of the calls 2 s more",
            base().round_trip(ms(80)).stalls(0.01, ms(2_000)),
        ),
        World::new("max-wait-60", "max_wait is 60 s", base().max_wait(ms(60_000))),
    ]
}

/// Loads like those of recorded services, from the figures that were published about them: mean
/// rates and mean sizes. How their rates wander is assumed.
fn services() -> Vec<World> {
    let size = |median, sigma| Size { median, sigma };
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    // The conversations of AzurePublicDataset 2023: 19,366 requests in an hour, prompts of 1,155
    // tokens on average, answers of 211.
    let chat = |fraction| {
        around(Load::Wandering { rate: 5.4, sigma: 0.25, tick: Duration::ZERO })
            .sizes(Sizes { prompt: size(800.0, 0.85), output: size(130.0, 1.0), tail: None })
            .ptu_fraction_of_drawn(fraction)
            .length(minutes(30))
    };
    // The tools and agents of Mooncake (FAST 2025): 23,608 requests in an hour, prompts of 8,596
    // tokens of which 59 % are in the cache, answers of 182.
    let agents = |tick| {
        let pace =
            Pace { first_token: Duration::from_millis(200), per_token: Duration::from_millis(30) };
        around(Load::Wandering { rate: 6.5, sigma: 0.25, tick: Duration::from_secs(tick) })
            .sizes(Sizes { prompt: size(6_300.0, 0.8), output: size(60.0, 1.5), tail: None })
            .cached(0.85)
            .cache_hits(0.7)
            .pace(pace)
            .length(minutes(30))
    };
    let bars = [TokensOverReference(0.0), Mean(1_000.0)];
    vec![
        World::new("chat-0.7", "like a chat service, on a PTU for 0.7 of it", chat(0.7))
            .bars([TokensOverOracle(0.1), Mean(600.0)]),
        World::new("chat-1.0", "like a chat service, on a PTU for all of it", chat(1.0))
            .bars([TokensOverOracle(0.3), Mean(450.0)]),
        World::new("agents", "like agents with a prefix cache, 30 ms a token", agents(0))
            .bars(bars),
        World::new("agents-ticks", "the same, whose arrivals are recorded every 3 s", agents(3))
            .bars(bars),
    ]
}

/// A recorded load.
fn traces(trace: &Trace) -> Vec<World> {
    let around = |fraction| {
        Simulation::new(Load::Trace(trace.clone())).ptu_fraction(fraction).bucket_seconds(3.0)
    };
    if trace.tells_cached() {
        let slow = |millis| {
            let first_token = Duration::from_millis(200);
            around(1.0).pace(Pace { first_token, per_token: Duration::from_millis(millis) })
        };
        let bars = [TokensOverReference(0.0), Mean(1_000.0)];
        return [
            ("trace-cached-15ms", "a recorded load with its prefix cache, 15 ms a token", 15),
            ("trace-cached-30ms", "a recorded load with its prefix cache, 30 ms a token", 30),
            ("trace-cached-100ms", "a recorded load with its prefix cache, 100 ms a token", 100),
        ]
        .map(|(name, about, millis)| World::new(name, about, slow(millis)).bars(bars))
        .into();
    }
    // The gate of November 2026 spilled 0.29 and 0.77 points more than the oracle, at 0.255 and
    // 0.315 of the reference's mean: allow at most 0.1 points more, and two thirds of the mean.
    vec![
        World::new("trace-0.7", "a recorded load on a PTU for 0.7 of it", around(0.7))
            .rig([76.66, 72.30, 0.0, 72.07])
            .bars([TokensOverOracle(0.39), MeanOfReference(0.17)]),
        World::new("trace-1.0", "a recorded load on a PTU for all of it", around(1.0))
            .rig([67.25, 61.60, 0.0, 60.98])
            .bars([TokensOverOracle(0.87), MeanOfReference(0.21)]),
    ]
}
