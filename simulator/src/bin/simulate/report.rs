//! The comparison that is kept in the repository, as Markdown.

use std::{env, error::Error, fmt::Write, fs, path::Path, time::Duration};

use spillover_simulator::{Load, Policy, SimReport, Simulation, Trace, table};

use crate::{args::Args, matrix, runs};

/// Runs everything and writes it to `file`.
pub(crate) fn write(args: &Args, file: &Path) -> Result<(), Box<dyn Error>> {
    let trace = args.read_trace()?;
    let sections = sections(args, trace.as_ref())?;
    let jobs: Vec<runs::Job> =
        sections.iter().flat_map(|section| section.jobs.iter().cloned()).collect();
    let mut reports = runs::batch(&jobs)?.into_iter();
    let mut text = introduction(args);
    let mut chapter = "";
    for section in &sections {
        let own: Vec<SimReport> = reports.by_ref().take(section.jobs.len()).collect();
        if section.chapter != chapter {
            chapter = section.chapter;
            writeln!(text, "\n## {chapter}\n\n{}", section.about)?;
        }
        write!(text, "\n### {}\n\n{}", section.title, table(&averages(&own)))?;
    }
    text.push_str(&worlds(args, trace.as_ref())?);
    let text = format!("{}\n", text.trim_end());
    fs::write(file, text).map_err(|error| format!("--report {}: {error}", file.display()))?;
    eprintln!("wrote {}", file.display());
    Ok(())
}

/// The worlds: their settings, how the policies did, and which requirements the gate does not meet.
fn worlds(args: &Args, trace: Option<&Trace>) -> Result<String, Box<dyn Error>> {
    let rows = matrix::run(args, matrix::selected(args, trace)?)?;
    Ok(format!(
        "\n## Worlds\n\n{WORLDS}\n{}\n{}\n### Yielding and competing\n\n{CONTENDED}\n{}\n### Another rig\n\n{RIG}\n{}",
        matrix::list(&rows),
        matrix::tables(&rows)?,
        matrix::contended_table(&rows),
        matrix::rig_table(&rows)
    ))
}

/// One table, and the runs it needs.
struct Section {
    chapter: &'static str,
    about: String,
    title: String,
    jobs: Vec<runs::Job>,
}

fn sections(args: &Args, trace: Option<&Trace>) -> Result<Vec<Section>, String> {
    let policies = runs::wired(args)?;
    let mut sections = Vec::new();
    if let Some(trace) = trace {
        sections.extend(traced(args, trace, &policies));
    }
    sections.extend(synthetic(args, &policies));
    sections.extend(shared_ptu(args, &policies));
    sections.extend(limited_standard(args, &policies));
    sections.extend(uninformed(args, &policies));
    Ok(sections)
}

fn traced(args: &Args, trace: &Trace, policies: &[Policy]) -> Vec<Section> {
    let name = args.trace.as_deref().and_then(Path::file_name).unwrap_or_default();
    let about = format!(
        "`{}`: {} requests in {:.0} minutes. The PTU drains a share of the trace's mean load in \
         weighted tokens; Standard is ample; one process.",
        name.to_string_lossy(),
        trace.len(),
        trace.length().as_secs_f64() / 60.0
    );
    let mut sections = Vec::new();
    for fraction in [0.5, 0.7, 1.0, 1.5] {
        for bucket in [1.0, 3.0, 10.0] {
            let simulation = args
                .shared(Load::Trace(trace.clone()))
                .ptu_fraction(fraction)
                .bucket_seconds(bucket);
            sections.push(Section {
                chapter: "A real trace",
                about: about.clone(),
                title: format!("PTU at {fraction} of the mean load, bucket {bucket} s"),
                jobs: policies.iter().map(|&policy| (simulation.clone(), policy)).collect(),
            });
        }
    }
    sections
}

fn synthetic(args: &Args, policies: &[Policy]) -> Vec<Section> {
    let about = format!(
        "A PTU for 40 requests a second, bucket 10 s; Standard is ample; one process. Bursty loads \
         last {} minutes, Poisson loads {}, after one that is not measured. Figures are means over \
         {} seeds, percentiles too.",
        minutes(args, &Load::Bursty { rate: 1.0 }),
        minutes(args, &Load::Poisson { rate: 1.0 }),
        seeds_of(args)
    );
    let loads = [
        ("Bursty, 80 % of the PTU", Load::Bursty { rate: 32.0 }, 1.0 / 0.8),
        ("Bursty, 100 % of the PTU", Load::Bursty { rate: 40.0 }, 1.0),
        ("Poisson, 120 % of the PTU", Load::Poisson { rate: 48.0 }, 1.0 / 1.2),
        ("Poisson, 200 % of the PTU", Load::Poisson { rate: 80.0 }, 1.0 / 2.0),
    ];
    let section = |(title, load, fraction): (&str, Load, f64)| Section {
        chapter: "Synthetic loads",
        about: about.clone(),
        title: title.to_owned(),
        jobs: seeds(args, policies, &lasting(args, load).ptu_fraction(fraction)),
    };
    loads.into_iter().map(section).collect()
}

fn shared_ptu(args: &Args, policies: &[Policy]) -> Vec<Section> {
    let alone = [Policy::SpillFirst, Policy::RegionChain];
    let policies: Vec<_> = policies.iter().copied().filter(|p| !alone.contains(p)).collect();
    let section = |processes: usize| Section {
        chapter: "Processes that share a PTU",
        about: format!(
            "The bursty load at 100 % of the PTU, distributed over independent processes. The \
             oracle is one queue for all of them. One seed, {}.",
            args.seed
        ),
        title: format!("{processes} process(es)"),
        jobs: {
            let load = lasting(args, Load::Bursty { rate: 40.0 }).processes(processes);
            policies.iter().map(|&policy| (load.clone(), policy)).collect()
        },
    };
    [1, 4, 16, 64].into_iter().map(section).collect()
}

fn limited_standard(args: &Args, policies: &[Policy]) -> Vec<Section> {
    let policies: Vec<_> =
        policies.iter().copied().filter(|policy| *policy != Policy::Oracle).collect();
    let loads = [
        ("Bursty, 100 % of the PTU", Load::Bursty { rate: 40.0 }, 1.0),
        ("Poisson, 150 % of the PTU", Load::Poisson { rate: 60.0 }, 1.0 / 1.5),
        ("Poisson, 200 % of the PTU", Load::Poisson { rate: 80.0 }, 1.0 / 2.0),
    ];
    let section = |(title, load, fraction): (&str, Load, f64)| Section {
        chapter: "Standard with limits",
        about: format!(
            "Three regions whose limits together allow 40 requests per second, counting prompt and \
             `max_tokens` tokens alike. The script's policies use only the first region. One \
             seed, {}.",
            args.seed
        ),
        title: title.to_owned(),
        jobs: {
            let load = lasting(args, load)
                .ptu_fraction(fraction)
                .standard_rate(STANDARD_TOKENS_PER_SECOND);
            policies.iter().map(|&policy| (load.clone(), policy)).collect()
        },
    };
    loads.into_iter().map(section).collect()
}

fn uninformed(args: &Args, policies: &[Policy]) -> Vec<Section> {
    let learning = [Policy::Reference, Policy::Gate, Policy::GateStanding];
    let policies: Vec<_> = policies.iter().copied().filter(|p| learning.contains(p)).collect();
    let load = lasting(args, Load::Bursty { rate: 40.0 });
    let section = |(title, simulation): (&str, Simulation)| Section {
        chapter: "Without hints or usage",
        about: format!(
            "The bursty load at 100 % of the PTU, and a service that sends less information: 429s \
             without any header about waits or quotas, answers without `usage` and utilisation. \
             One process, one seed, {}.",
            args.seed
        ),
        title: title.to_owned(),
        jobs: policies.iter().map(|&policy| (simulation.clone(), policy)).collect(),
    };
    [
        ("With hints and usage", load.clone()),
        ("429s without hints", load.clone().without_hints()),
        ("Answers without usage", load.clone().without_usage()),
        ("Neither hints nor usage", load.without_hints().without_usage()),
    ]
    .map(section)
    .into()
}

/// The settings shared by all synthetic loads, and their length.
fn lasting(args: &Args, load: Load) -> Simulation {
    let length = Duration::from_secs_f64(60.0 * minutes(args, &load));
    args.shared(load).length(length)
}

/// Sustained overload looks the same from minute to minute; bursts take longer to average out.
fn minutes(args: &Args, load: &Load) -> f64 {
    let usual = if matches!(load, Load::Poisson { .. }) { 10.0 } else { 20.0 };
    args.duration.map_or(usual, |length| length.as_secs_f64() / 60.0)
}

fn seeds_of(args: &Args) -> u64 {
    args.seeds.unwrap_or(2).max(1)
}

/// Every policy with every seed, grouped by policy.
fn seeds(args: &Args, policies: &[Policy], simulation: &Simulation) -> Vec<runs::Job> {
    let seeds = args.seed..args.seed.saturating_add(seeds_of(args));
    let of = |&policy: &Policy| {
        seeds.clone().map(move |seed| (simulation.clone().seed(seed), policy)).collect::<Vec<_>>()
    };
    policies.iter().flat_map(of).collect()
}

/// One report per policy: the means of its runs.
fn averages(reports: &[SimReport]) -> Vec<SimReport> {
    let same = |a: &SimReport, b: &SimReport| a.policy == b.policy;
    reports.chunk_by(same).map(average).collect()
}

/// The means of the runs; for figures with a limit, the worst.
pub(crate) fn average(runs: &[SimReport]) -> SimReport {
    let mean =
        |figure: fn(&SimReport) -> f64| runs.iter().map(figure).sum::<f64>() / runs.len() as f64;
    let mut all = runs[0].clone();
    all.requests = runs.iter().map(|run| run.requests).sum();
    all.utilisation = mean(|run| run.utilisation);
    all.spilled_requests = mean(|run| run.spilled_requests);
    all.spilled_tokens = mean(|run| run.spilled_tokens);
    all.beside_ptu = mean(|run| run.beside_ptu);
    all.spilled_tokens_a_minute = mean(|run| run.spilled_tokens_a_minute);
    all.attempts_per_success = mean(|run| run.attempts_per_success);
    all.worst_attempts = mean(|run| run.worst_attempts);
    all.added.p50 = mean(|run| run.added.p50);
    all.added.p95 = mean(|run| run.added.p95);
    all.added.p99 = mean(|run| run.added.p99);
    all.added.mean = mean(|run| run.added.mean);
    let spilled: Vec<f64> = runs.iter().filter_map(|run| run.spilled_added_p50_ms).collect();
    all.spilled_added_p50_ms =
        (!spilled.is_empty()).then(|| spilled.iter().sum::<f64>() / spilled.len() as f64);
    all.overtakes = mean(|run| run.overtakes);
    all.refused = mean(|run| run.refused);
    let latest = runs.iter().map(|run| run.last_dispatch_over_ms);
    let longest = runs.iter().filter_map(|run| run.longest_open);
    let violations = longest.clone().map(|open| open.violations).sum();
    all.longest_open = longest.max_by(|a, b| a.longest_ms.total_cmp(&b.longest_ms));
    if let Some(open) = &mut all.longest_open {
        open.violations = violations;
    }
    all.most_asks = runs.iter().map(|run| run.most_asks).max().unwrap_or(0);
    for (index, outage) in all.outages.iter_mut().enumerate() {
        let each = || runs.iter().map(|run| &run.outages[index]);
        outage.added_p95_ms = each().map(|outage| outage.added_p95_ms).fold(0.0, f64::max);
        let noticed = each().map(|outage| outage.noticed_after_ms.unwrap_or(f64::INFINITY));
        outage.noticed_after_ms = Some(noticed.fold(0.0, f64::max)).filter(|ms| ms.is_finite());
    }
    all.last_dispatch_over_ms = latest.fold(f64::NEG_INFINITY, f64::max);
    all
}

fn introduction(args: &Args) -> String {
    format!(
        "# Simulation\n\nMade by `cargo run --release -p spillover-simulator -- {}`; a seed gives \
         the same figures on every run.\n\n\
         The policies are stacks of the crate's layers over its emulator, in virtual time:\n\n\
         - `spill-first`: spills on the first 429, like Azure's native spillover;\n\
         - `reference`: waits while `elapsed + retry-after <= max_wait`, keeps no state;\n\
         - `region-chain`: picks randomly among the PTU and three regions, and again after each \
           429, with the waits of API Management's `retry` (0, 4, 6, 10, 18, 20, ... s);\n\
         - `shared`: the layers with shared cooldowns only;\n\
         - `gate`, `gate-standing`: the layers with admission control for the PTU, without and \
           with control of standing queues;\n\
         - `oracle`: a queue that knows the bucket exactly, without a network: a bound that no \
           policy can beat by much.\n\n\
         Costs are prompt + 3 x output tokens; callers set `max_tokens` to 1 to 2 times the answer. \
         Round trips take 30 ms (PTU and the Standard deployment beside it), 60 and 90 ms, plus or \
         minus a fifth. `max_wait` is {} s.\n\n\
         Columns: `util`: the weighted tokens that the PTU served, over what it could drain; \
         `spill`, `tokens`: requests and weighted tokens that Standard served; `att/ok`: attempts \
         per success; `p50` to `mean`: added latency, from arrival until the accepted attempt \
         reaches a server; `spl-p50`: the median of the requests that Standard served; `overtk`: \
         the PTU's admissions that overtook an older waiting request of their process; `429`: \
         refusals that callers got; `over`: how much later than `max_wait` the last attempt of any \
         request left, in ms; `open`: the longest time that the PTU stood below 100 % while a \
         request without an attempt in flight waited, in ms.\n",
        command(),
        args.max_wait.as_secs_f64()
    )
}

/// The command-line arguments, with file names in place of paths.
fn command() -> String {
    let name = |word: String| word.rsplit('/').next().unwrap_or_default().to_owned();
    env::args().skip(1).map(name).collect::<Vec<_>>().join(" ")
}

/// 40 requests a second: prompts of 1,102 tokens, and a `max_tokens` of 1.5 times 256.
const STANDARD_TOKENS_PER_SECOND: f64 = 40.0 * (1_101.7 + 1.5 * 255.5);

const WORLDS: &str = "\
Unless stated otherwise: ten requests per second in bursts, on a PTU that drains the mean of what the seed has \
drawn, with a bucket of 3 s; `max_wait` 4 s; unlimited Standard; one process; no warm-up, so that the gate \
starts without an estimate; 15 minutes. Figures are means over the seeds; for figures with a limit (`open`, \
`asks`, `over`) the worst seed.

`native` is `spill-first`, and `gate` is `gate-standing`, the default of the layers. The first four columns are the weighted \
tokens that the PTU did not serve, in percent; `mean`: added latency, in ms; `att`: attempts per success; \
`spl50`: the median added latency of spilled requests; `open`: the longest time that the PTU stood below 100 % while a \
request without an attempt in flight waited, in ms, judged at every event (an admission that fills the PTU ends it); `asks`: \
attempts at the PTU for one request in any 4 s; `over`: how much later than its `max_wait` a request was sent, in \
ms. Required everywhere: tokens at most native + 0.1 and, without a neighbour, reference + 0.5; open at most 500 ms \
(2.5 round trips if one takes more than 200 ms) with a single process; over at most 1 ms. At most 8 \
asks are required only where hints are no help: elsewhere the gate sends probes that it expects to be refused, to check \
its model, and these do not count against a request.
";
const CONTENDED: &str = "\
Where other processes or another application use the same PTU, a gate may yield, which is the default, or \
compete (`Contention`). The policies are `reference`, `gate-standing` and `gate-compete`.
";
const RIG: &str = "\
Results of an independent rig around the layers of November 2026 in similar worlds, in percent of the weighted \
tokens. Its draws differ, so levels deviate by up to two points; the policies have to come in the same order. The bars on \
tokens above are distances to the reference rule in that rig.
";
