//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{ArgGroup, Parser, ValueEnum};
use spillover_emulator::Pace;
use spillover_simulator::{
    Deal, Hints, Lives, Load, MaxTokens, Neighbour, Outage, Policy, Simulation, Trace,
};

use crate::settings::{self, time};

/// Compares policies for a PTU under a load, in virtual time.
///
/// The layers are the real ones, over an emulated Azure OpenAI; an hour of traffic takes seconds,
/// and a seed always gives the same figures. Every policy gets the same requests. "Added" latency
/// is the time from a request's arrival until the accepted attempt reaches a server.
#[derive(Debug, Parser)]
#[command(group(ArgGroup::new("load").args(["trace", "poisson", "bursty", "volleys", "conversations"])), max_term_width = 100,
    allow_negative_numbers = true)]
pub(crate) struct Args {
    /// Recorded requests: a CSV file with the columns TIMESTAMP, ContextTokens and GeneratedTokens,
    /// as in the AzurePublicDataset, and optionally CachedTokens.
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Independent requests, at RATE per second.
    #[arg(long, value_name = "RATE")]
    poisson: Option<f64>,
    /// Bursts: 2.2 times RATE for about 15 s, then 0.6 times RATE for about 45 s [default load, at
    /// 40].
    #[arg(long, value_name = "RATE")]
    bursty: Option<f64>,
    /// N requests at once, every so often: 14/13s.
    #[arg(long, value_name = "N/TIME", value_parser = settings::volleys)]
    volleys: Option<Load>,
    /// COUNT concurrent conversations that grow, over several resources with one PTU and prompt
    /// cache each: compares the spill with and without cache affinity.
    #[arg(long, value_name = "N", conflicts_with_all = ["svg", "policy", "processes", "ptu_rate"])]
    pub(crate) conversations: Option<usize>,
    /// Number of resources for --conversations.
    #[arg(long, value_name = "N", default_value_t = 4, requires = "conversations")]
    pub(crate) resources: usize,
    /// The PTU's drain rate as a share of the mean load in weighted tokens.
    #[arg(long, value_name = "SHARE", default_value_t = 1.0, conflicts_with = "ptu_rate")]
    pub(crate) ptu_fraction: f64,
    /// The PTU's drain rate in weighted tokens per second instead; an output token weighs 3.
    #[arg(long, value_name = "TOKENS")]
    ptu_rate: Option<f64>,
    /// Depth of the PTU's bucket: how long it takes to drain.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time)]
    bucket: Duration,
    /// The longest that a request may wait for the PTU.
    #[arg(long, value_name = "TIME", default_value = "4s", value_parser = time)]
    pub(crate) max_wait: Duration,
    /// Number of independent processes that share the PTU.
    #[arg(long, value_name = "N", default_value_t = 1)]
    processes: usize,
    /// The processes are a fleet: they share one gate in a store.
    #[arg(long)]
    fleet: bool,
    /// Round trip to the store of the fleet.
    #[arg(long, value_name = "TIME", default_value = "1ms", value_parser = time, requires = "fleet")]
    store_rtt: Duration,
    /// The store of the fleet does not answer, so long after the start: 5m+60s.
    #[arg(long, value_name = "AT+TIME", value_parser = settings::span, requires = "fleet")]
    store_outage: Option<(Duration, Duration)>,
    /// How often the store of the fleet loses its data, as if it restarted without it.
    #[arg(long, value_name = "TIME", value_parser = time, requires = "fleet")]
    store_forgets: Option<Duration>,
    /// This share of the processes loses the store of the fleet when the measurement begins.
    #[arg(long, value_name = "SHARE", requires = "fleet")]
    store_cut_off: Option<f64>,
    /// How requests are assigned to processes.
    #[arg(long, value_enum, default_value_t = Dealt::RoundRobin)]
    deal: Dealt,
    /// Seed for arrivals, sizes, delays and the layers' random draws.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// `all`, or names separated by commas: spill-first, reference, region-chain, shared, gate,
    /// gate-standing, gate-compete, oracle, oracle-standing. `all` excludes gate-compete and
    /// oracle-standing.
    #[arg(long, value_name = "NAMES", default_value = "all")]
    pub(crate) policy: String,
    /// How much to simulate [default: all of a trace, 20m of other loads; 10m of the Poisson loads of
    /// --report].
    #[arg(long, value_name = "TIME", value_parser = some_time)]
    pub(crate) duration: Option<Duration>,
    /// How much to simulate first, without measuring [default: 0s for a trace, 60s for other loads].
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) warm_up: Option<Duration>,
    /// Token limit per second of the three Standard regions together, counting prompt and
    /// `max_tokens` [default: no limit].
    #[arg(long, value_name = "TOKENS")]
    standard_rate: Option<f64>,
    /// The share of attempts that each deployment answers with 500. The oracles ignore it.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    failures: f64,
    /// How long a burst may last before its queue counts as standing, for the policies that control
    /// standing queues.
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = time)]
    standing: Duration,
    /// Strips every hint from 429s, like gateways that rewrite errors.
    #[arg(long)]
    no_hints: bool,
    /// Strips usage from answers, like event streams without `include_usage`.
    #[arg(long)]
    no_usage: bool,
    /// Time until the first token of an answer.
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = time)]
    first_token: Duration,
    /// Time per token after the first.
    #[arg(long, value_name = "TIME", default_value = "5ms", value_parser = time)]
    per_token: Duration,
    /// The `max_tokens` of requests: up-to:2 for one to two times the answer, times:4 for four
    /// times, 4000 for a constant, mixed:0.5x16 for that share of requests with 16 times the answer and
    /// the others with exactly it, or none:4096 if omitted, with what the service then assumes
    /// [default: up-to:2].
    #[arg(long, value_name = "KIND", value_parser = settings::max_tokens)]
    pub(crate) max_tokens: Option<MaxTokens>,
    /// The share of each prompt that is in the PTU's cache.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub(crate) cached: f64,
    /// Answers are sent as event streams.
    #[arg(long)]
    pub(crate) streamed: bool,
    /// How the PTU's 429s state the wait: exact, seconds (whole ones), none, a constant such as
    /// 43ms, or false:0.08 for that share of false hints of 5 to 17 s [default: exact].
    #[arg(long, value_name = "KIND", value_parser = settings::hints, conflicts_with = "no_hints")]
    pub(crate) hints: Option<Hints>,
    /// How one of the --parts of the PTU states the wait instead, by its number from 0: 1:seconds.
    #[arg(long, value_name = "PART:KIND", value_parser = settings::hints_of)]
    pub(crate) hints_of: Option<(usize, Hints)>,
    /// The share of messages that take longer, and by how much: 0.01:2s.
    #[arg(long, value_name = "SHARE:TIME", value_parser = settings::stalls)]
    pub(crate) stalls: Option<(f64, Duration)>,
    /// Round trip to the PTU.
    #[arg(long, value_name = "TIME", default_value = "30ms", value_parser = time)]
    pub(crate) round_trip: Duration,
    /// Additional time until a refusal of the PTU comes back.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = time)]
    pub(crate) refusal_time: Duration,
    /// Another application uses this share of the PTU: in bursts unless `steady`; it drops refused
    /// requests unless it `hammers`; always, unless it stays for a time: 0.5,steady,hammers,5m+60s.
    #[arg(long, value_name = "SHARE[,...]", value_parser = settings::neighbour)]
    pub(crate) neighbour: Option<Neighbour>,
    /// An outage of the PTU, so long after the start: 5m+2m:503, or :429 without hints, or :down. May
    /// be repeated.
    #[arg(long, value_name = "AT+TIME:KIND", value_parser = settings::outage)]
    pub(crate) outage: Vec<(Duration, Duration, Outage)>,
    /// Multiplies the PTU's drain rate, so long after the start: 5m:0.5. May be repeated.
    #[arg(long, value_name = "AT:FACTOR", value_parser = settings::resize)]
    pub(crate) resize: Vec<(Duration, f64)>,
    /// Divides the PTU between two or three regions: 0.6,0.3,0.1.
    #[arg(long, value_name = "SHARES", value_delimiter = ',')]
    pub(crate) parts: Vec<f64>,
    /// Lifetime and pause of each process, and how it ends: 90s+30s:stops or 90s+30s:crashes.
    #[arg(long, value_name = "TIME+PAUSE:ENDING", value_parser = settings::lives)]
    pub(crate) lives: Option<Lives>,
    /// Prints an array with one object per policy instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
    /// Draws queue, level, spill and latency over time, and the trade-off for other values of
    /// max_wait.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Writes only the comparison that is kept in the repository, as Markdown. Includes a trace
    /// given with --trace.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "benches/SIMULATION.md",
          conflicts_with_all = ["poisson", "bursty", "conversations", "json",
                                "svg"])]
    pub(crate) report: Option<PathBuf>,
    /// Runs every world (a variation of the base setting): one row each, and the gate's
    /// requirements that fail. With --trace, includes the worlds of that trace.
    #[arg(long, conflicts_with_all = ["poisson", "bursty", "conversations", "json", "svg"])]
    pub(crate) matrix: bool,
    /// Runs only the worlds whose names contain one of these words, separated by commas.
    #[arg(long, value_name = "NAMES",
          conflicts_with_all = ["poisson", "bursty", "conversations", "json", "svg"])]
    pub(crate) worlds: Option<String>,
    /// Number of seeds to average the synthetic loads of --report and the worlds over [default: 2
    /// and 3].
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
        let mut simulation = self.shared(load).bucket_seconds(self.bucket.as_secs_f64());
        simulation = match self.ptu_rate {
            Some(rate) => simulation.ptu_rate(rate),
            None => simulation.ptu_fraction(self.ptu_fraction),
        };
        if let Some(rate) = self.standard_rate {
            simulation = simulation.standard_rate(rate);
        }
        simulation = simulation.failures(self.failures).processes(self.processes);
        if self.fleet {
            simulation = simulation.fleet(self.store_rtt);
        }
        if let Some((at, lasts)) = self.store_outage {
            simulation = simulation.store_outage(at, lasts);
        }
        if let Some(every) = self.store_forgets {
            simulation = simulation.store_forgets(every);
        }
        if let Some(share) = self.store_cut_off {
            simulation = simulation.store_cut_off(share);
        }
        settings::apply(self, simulation)
    }

    /// The settings that --report shares.
    pub(crate) fn shared(&self, load: Load) -> Simulation {
        let mut simulation = Simulation::new(load)
            .seed(self.seed)
            .max_wait(self.max_wait)
            .standing(self.standing)
            .deal(match self.deal {
                Dealt::RoundRobin => Deal::RoundRobin,
                Dealt::Random => Deal::Random,
            })
            .pace(Pace { first_token: self.first_token, per_token: self.per_token });
        if self.no_hints {
            simulation = simulation.without_hints();
        }
        if self.no_usage {
            simulation = simulation.without_usage();
        }
        if let Some(length) = self.duration {
            simulation = simulation.length(length);
        }
        if let Some(warm_up) = self.warm_up {
            simulation = simulation.warm_up(warm_up);
        }
        simulation
    }

    /// Describes the simulation in one line.
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
             tokens/s ({:.0} %), bucket {} s; max_wait {} s; {} process(es){}; seed {}",
            length.as_secs_f64() / 60.0,
            ptu / mean * 100.0,
            self.bucket.as_secs_f64(),
            self.max_wait.as_secs_f64(),
            self.processes,
            if self.fleet { " as a fleet" } else { "" },
            self.seed
        )
    }

    /// The values of `max_wait` on the trade-off curve, around the given one.
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

/// A duration above 0.
fn some_time(text: &str) -> Result<Duration, String> {
    let length = Some(time(text)?).filter(|length| !length.is_zero());
    length.ok_or_else(|| "a duration above 0 is needed".to_owned())
}
