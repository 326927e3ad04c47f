//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{ArgGroup, Parser, ValueEnum};
use spillover_emulator::Pace;
use spillover_simulator::{
    Deal, Hints, Lives, Load, MaxTokens, Neighbour, Outage, Policy, Simulation, Trace,
};

use crate::settings::{self, seconds};

/// Shows what a PTU and a `max_wait` buy: policies under a load, in virtual time.
///
/// The layers are the real ones, over an emulated Azure OpenAI; an hour of traffic takes seconds,
/// and a seed gives the same figures every time. Every policy meets the same requests. "Added" is
/// the time from a request's arrival until the accepted attempt reaches a server.
#[derive(Debug, Parser)]
#[command(group(ArgGroup::new("load").args(["trace", "poisson", "bursty", "volleys", "conversations"])), max_term_width = 100,
    allow_negative_numbers = true)]
pub(crate) struct Args {
    /// Recorded requests: a CSV file with the columns TIMESTAMP, ContextTokens and
    /// GeneratedTokens, as in the AzurePublicDataset, and CachedTokens where it tells them.
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Independent requests, so many a second.
    #[arg(long, value_name = "RATE")]
    poisson: Option<f64>,
    /// Bursts: 2.2 times RATE for about 15 s, 0.6 times RATE for about 45 s [default load, at 40].
    #[arg(long, value_name = "RATE")]
    bursty: Option<f64>,
    /// N requests at once, every so many seconds: 14/13.
    #[arg(long, value_name = "N/SECONDS", value_parser = settings::volleys)]
    volleys: Option<Load>,
    /// Conversations that grow, so many at a time, over a PTU with a prompt cache in each of several
    /// resources: what is spilled with and without cache affinity.
    #[arg(long, value_name = "N", conflicts_with_all = ["svg", "policy", "processes", "ptu_rate"])]
    pub(crate) conversations: Option<usize>,
    /// The resources of --conversations.
    #[arg(long, value_name = "N", default_value_t = 4, requires = "conversations")]
    pub(crate) resources: usize,
    /// The PTU's drain as a share of the mean load in weighted tokens.
    #[arg(long, value_name = "SHARE", default_value_t = 1.0, conflicts_with = "ptu_rate")]
    pub(crate) ptu_fraction: f64,
    /// The PTU's drain in weighted tokens a second instead; an output token weighs 3.
    #[arg(long, value_name = "TOKENS")]
    ptu_rate: Option<f64>,
    /// The depth of the PTU's bucket, in seconds of its drain.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    bucket: f64,
    /// The longest that a request may wait for the PTU.
    #[arg(long, value_name = "SECONDS", default_value = "4", value_parser = seconds)]
    pub(crate) max_wait: Duration,
    /// Processes that share the PTU without knowing of each other.
    #[arg(long, value_name = "N", default_value_t = 1)]
    processes: usize,
    /// Which process a request arrives at.
    #[arg(long, value_enum, default_value_t = Dealt::RoundRobin)]
    deal: Dealt,
    /// Seeds arrivals, sizes, delays and the layers' draws.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// `all`, or names separated by commas: spill-first, reference, region-chain, shared, gate,
    /// gate-standing, gate-compete, oracle, oracle-standing. `all` is without gate-compete and
    /// oracle-standing.
    #[arg(long, value_name = "NAMES", default_value = "all")]
    pub(crate) policy: String,
    /// Simulates so many minutes [default: all of a trace, 20 of other loads; 10 of the Poisson
    /// loads of --report].
    #[arg(long, value_name = "M", value_parser = minutes)]
    pub(crate) minutes: Option<Duration>,
    /// Simulates so many seconds more, at the start, that are not measured [default: 0 for a
    /// trace, 60 for other loads].
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) warm_up: Option<Duration>,
    /// Limits the three Standard regions to so many tokens a second together, prompt and
    /// `max_tokens` alike [default: no limit].
    #[arg(long, value_name = "TOKENS")]
    standard_rate: Option<f64>,
    /// The share of the attempts that each deployment answers with 500, of which an oracle knows
    /// nothing.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    failures: f64,
    /// How long a burst may last before its queue counts as standing, for the policies that
    /// control that.
    #[arg(long, value_name = "SECONDS", default_value = "20", value_parser = seconds)]
    standing: Duration,
    /// Takes every hint from 429s, as gateways do that make errors of their own.
    #[arg(long)]
    no_hints: bool,
    /// Takes what tells about their cost from answers, as event streams without usage do.
    #[arg(long)]
    no_usage: bool,
    /// Milliseconds until the first token of an answer.
    #[arg(long, value_name = "MS", default_value_t = 200)]
    first_token: u64,
    /// Milliseconds for each token after the first.
    #[arg(long, value_name = "MS", default_value_t = 5)]
    per_token: u64,
    /// What requests say of the most that their answers take: up-to:2 times the answer, times:4 of it,
    /// always 4000, or nothing, for which the service assumes none:4096 [default: up-to:2].
    #[arg(long, value_name = "KIND", value_parser = settings::max_tokens)]
    pub(crate) max_tokens: Option<MaxTokens>,
    /// The share of each prompt that the PTU has in its cache.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub(crate) cached: f64,
    /// Answers are event streams.
    #[arg(long)]
    pub(crate) streamed: bool,
    /// What the PTU's 429s say of their length: exact, whole seconds, none, always so many
    /// milliseconds, or false:0.08, of which that share says 5 to 17 s [default: exact].
    #[arg(long, value_name = "KIND", value_parser = settings::hints, conflicts_with = "no_hints")]
    pub(crate) hints: Option<Hints>,
    /// Milliseconds to the PTU and back.
    #[arg(long, value_name = "MS", default_value_t = 30)]
    pub(crate) round_trip: u64,
    /// Milliseconds that a refusal of the PTU takes besides.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub(crate) refusal_time: u64,
    /// Another application takes this share of the PTU, in bursts unless `steady`, and drops what is
    /// refused unless it `hammers`: 0.5,steady,hammers.
    #[arg(long, value_name = "SHARE[,...]", value_parser = settings::neighbour)]
    pub(crate) neighbour: Option<Neighbour>,
    /// The PTU serves nobody from second AT on: 300+120:503, or :429 without hints, or :down. May be
    /// given several times.
    #[arg(long, value_name = "AT+SECONDS:KIND", value_parser = settings::outage)]
    pub(crate) outage: Vec<(Duration, Duration, Outage)>,
    /// The PTU drains so many times its drain from second AT on: 300:0.5. May be given several times.
    #[arg(long, value_name = "AT:FACTOR", value_parser = settings::resize)]
    pub(crate) resize: Vec<(Duration, f64)>,
    /// The PTU is divided among two or three regions: 0.6,0.3,0.1.
    #[arg(long, value_name = "SHARES", value_delimiter = ',')]
    pub(crate) parts: Vec<f64>,
    /// Each process lives for so many seconds, the next one follows after a pause: 90+30:stops or
    /// 90+30:crashes.
    #[arg(long, value_name = "SECONDS+PAUSE:ENDING", value_parser = settings::lives)]
    pub(crate) lives: Option<Lives>,
    /// Prints an array with one object per policy instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
    /// Draws queue, level, spill and latency over time, and what other values of max_wait buy.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Writes the comparison that is kept in the repository, as Markdown, and nothing else. With
    /// --trace, that trace is part of it.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "benches/SIMULATION.md",
          conflicts_with_all = ["poisson", "bursty", "conversations", "json",
                                "svg"])]
    pub(crate) report: Option<PathBuf>,
    /// Runs every world: what may be unlike the other loads here, a row for each, with what is asked of
    /// the gate and does not hold. With --trace, that trace is two of them.
    #[arg(long, conflicts_with_all = ["poisson", "bursty", "conversations", "json", "svg"])]
    pub(crate) matrix: bool,
    /// Runs the worlds alone that have one of these in their names, which commas separate.
    #[arg(long, value_name = "NAMES",
          conflicts_with_all = ["poisson", "bursty", "conversations", "json", "svg"])]
    pub(crate) worlds: Option<String>,
    /// Seeds that the synthetic loads of --report and the worlds are averaged over [default: 2 and 3].
    #[arg(long, value_name = "N")]
    pub(crate) seeds: Option<u64>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Dealt {
    RoundRobin,
    Random,
}

impl Args {
    pub(crate) fn read() -> Self {
        Self::parse()
    }

    pub(crate) fn load(&self) -> Result<Load, String> {
        if let Some(rate) = self.poisson {
            return Ok(Load::Poisson { rate });
        }
        if let Some(volleys) = &self.volleys {
            return Ok(volleys.clone());
        }
        match self.read_trace()? {
            Some(trace) => Ok(Load::Trace(trace)),
            None => Ok(Load::Bursty { rate: self.bursty.unwrap_or(40.0) }),
        }
    }

    pub(crate) fn read_trace(&self) -> Result<Option<Trace>, String> {
        let Some(file) = &self.trace else { return Ok(None) };
        let place = file.display();
        let text = std::fs::read(file).map_err(|error| format!("--trace {place}: {error}"))?;
        let text = String::from_utf8(text).map_err(|error| {
            let line = error.as_bytes()[..error.utf8_error().valid_up_to()]
                .split(|byte| *byte == b'\n')
                .count();
            format!("--trace {place}: line {line}: is not text in UTF-8")
        })?;
        let trace = Trace::parse(&text).map_err(|error| format!("--trace {place}: {error}"))?;
        Ok(Some(trace))
    }

    pub(crate) fn simulation(&self, load: Load) -> Simulation {
        let mut simulation = self.shared(load).bucket_seconds(self.bucket);
        simulation = match self.ptu_rate {
            Some(rate) => simulation.ptu_rate(rate),
            None => simulation.ptu_fraction(self.ptu_fraction),
        };
        if let Some(rate) = self.standard_rate {
            simulation = simulation.standard_rate(rate);
        }
        settings::apply(self, simulation.failures(self.failures).processes(self.processes))
    }

    /// The settings that the report takes over too.
    pub(crate) fn shared(&self, load: Load) -> Simulation {
        let mut simulation = Simulation::new(load)
            .seed(self.seed)
            .max_wait(self.max_wait)
            .standing(self.standing)
            .deal(match self.deal {
                Dealt::RoundRobin => Deal::RoundRobin,
                Dealt::Random => Deal::Random,
            })
            .pace(Pace {
                first_token: Duration::from_millis(self.first_token),
                per_token: Duration::from_millis(self.per_token),
            });
        if self.no_hints {
            simulation = simulation.without_hints();
        }
        if self.no_usage {
            simulation = simulation.without_usage();
        }
        if let Some(length) = self.minutes {
            simulation = simulation.length(length);
        }
        if let Some(warm_up) = self.warm_up {
            simulation = simulation.warm_up(warm_up);
        }
        simulation
    }

    /// What is simulated, in one line.
    pub(crate) fn title(&self, requests: usize, length: Duration, mean: f64) -> String {
        let load = match (&self.trace, self.poisson) {
            _ if self.volleys.is_some() => "volleys".to_owned(),
            (Some(file), _) => {
                let name = file.file_name().unwrap_or(file.as_os_str());
                name.to_string_lossy().into_owned()
            }
            (None, Some(rate)) => format!("Poisson, {rate}/s"),
            (None, None) => format!("bursty, {}/s", self.bursty.unwrap_or(40.0)),
        };
        let ptu = self.ptu_rate.unwrap_or(self.ptu_fraction * mean);
        format!(
            "{load}: {requests} requests in {:.1} min, {mean:.0} weighted tokens/s; PTU {ptu:.0} \
             tokens/s ({:.0} %), bucket {} s; max_wait {} s; {} process(es); seed {}",
            length.as_secs_f64() / 60.0,
            ptu / mean * 100.0,
            self.bucket,
            self.max_wait.as_secs_f64(),
            self.processes,
            self.seed
        )
    }

    /// The values of `max_wait` for the trade-off curve: around the one asked for.
    pub(crate) fn curve_waits(&self) -> Vec<Duration> {
        let middle = self.max_wait.max(Duration::from_millis(100));
        [0.125, 0.25, 0.5, 1.0, 2.0, 4.0].map(|factor| middle.mul_f64(factor)).to_vec()
    }

    pub(crate) fn policies(&self) -> Result<Vec<Policy>, String> {
        if self.policy == "all" {
            return Ok(Policy::ALL.to_vec());
        }
        let name = |name: &str| {
            name.trim().parse().map_err(|error| format!("--policy {}: {error}", self.policy))
        };
        self.policy.split(',').map(name).collect()
    }
}

fn minutes(text: &str) -> Result<Duration, String> {
    let minutes: f64 = text.parse().map_err(|_| "a number of minutes is needed".to_owned())?;
    let length = Duration::try_from_secs_f64(minutes * 60.0).ok();
    length.filter(|length| !length.is_zero()).ok_or_else(|| "minutes above 0 are needed".to_owned())
}
