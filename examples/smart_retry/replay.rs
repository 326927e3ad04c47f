//! Replays a trace over loopback: with this library, then with the reference script's rule.

use std::{fs::File, io::BufReader, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use spillover_emulator::{Pace, Ptu, Standard};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout_at},
};

use crate::{
    Failure,
    account::{Account, Run},
    job::Replay,
    loopback::{Ask, Loopback, Policy},
    report::{Out, grouped, ms},
    trace::{self, Arrival, Trace},
};

/// Replays the trace twice and reports both runs.
pub(crate) async fn run(replay: &Replay, out: &mut Out) -> Result<(), Failure> {
    let name = replay.trace.display();
    let file = File::open(&replay.trace)
        .map_err(|error| format!("--trace {name}: {error}: name a CSV file that can be read"))?;
    let trace = trace::read(BufReader::new(file), replay.limit, replay.span)
        .map_err(|error| format!("--trace {name}: {error}"))?;
    let plan = Plan::new(replay, &trace)?;
    out.say(&plan.describe())?;
    let (mut runs, mut checks) = (Vec::new(), Vec::new());
    for policy in [Policy::Spillover, Policy::Reference] {
        let loopback = plan.start().await?;
        let ask = loopback.stack(policy, plan.real(replay.max_wait))?;
        let run = plan.drive(policy, &loopback, &ask, out).await?;
        checks.push(loopback.check(&run).and_then(|()| plan.check(&run)));
        runs.push(run);
    }
    out.result(&runs)?;
    checks.into_iter().collect()
}

/// Scales the trace to the speed of the replay.
///
/// All durations are divided by the speed: arrivals, the bucket's depth in seconds, answers, the
/// longest wait; the drain rate in tokens per second is multiplied by it. So a bucket holds as many
/// tokens as at the trace's speed, and a hint is the same share of `max_wait`.
struct Plan<'a> {
    replay: &'a Replay,
    arrivals: &'a [Arrival],
    /// Tokens a second, of the trace.
    load: f64,
    drain: f64,
    span: Duration,
}

impl<'a> Plan<'a> {
    fn new(replay: &'a Replay, trace: &'a Trace) -> Result<Self, Failure> {
        let arrivals = trace.arrivals.as_slice();
        // One request, or some of one instant, have no rate: a second is as good as any.
        let span = trace.span.max(Duration::from_secs(1));
        let cost =
            |arrival: &Arrival| arrival.prompt as f64 + OUTPUT_WEIGHT * arrival.completion as f64;
        let load = arrivals.iter().map(cost).sum::<f64>() / span.as_secs_f64();
        let drain = load * replay.ptu_fraction;
        if !(MOST_DRAIN.0..=MOST_DRAIN.1).contains(&(drain * replay.speedup)) {
            return Err(format!(
                "a PTU of {:.3} tokens/s at this speed is beyond the emulator: lower --speedup or \
                 --ptu-fraction, or name a trace with tokens in it",
                drain * replay.speedup
            )
            .into());
        }
        Ok(Self { replay, arrivals, load, drain, span })
    }

    fn describe(&self) -> String {
        format!(
            "{} requests in {:.1} min of {}, {} times as fast: {:.0} s at most for each of two runs.\n\
             PTU: {} tokens/s, {:.0} % of the mean load, bucket of {:.1} s. Longest wait {}.\n\
             Times are the trace's.\n",
            grouped(self.arrivals.len() as u128),
            self.span.as_secs_f64() / 60.0,
            self.replay.trace.display(),
            self.replay.speedup,
            self.real(self.span).as_secs_f64().ceil(),
            grouped(self.drain as u128),
            100.0 * self.drain / self.load,
            self.replay.bucket.as_secs_f64(),
            ms(self.replay.max_wait),
        )
    }

    async fn start(&self) -> std::io::Result<Loopback> {
        let ptu = Ptu::new(self.drain * self.replay.speedup)
            .bucket_seconds(self.real(self.replay.bucket).as_secs_f64())
            .output_weight(OUTPUT_WEIGHT);
        let standard =
            self.replay.standard_tpm.map_or(Standard::unlimited(), Standard::tokens_per_minute);
        let pace = Pace { first_token: self.real(FIRST_TOKEN), per_token: self.real(PER_TOKEN) };
        Loopback::start(ptu, [standard; 3], pace).await
    }

    /// Sends every request at its time, however long other answers take.
    async fn drive(
        &self,
        policy: Policy,
        loopback: &Loopback,
        ask: &Ask,
        out: &mut Out,
    ) -> Result<Run, Failure> {
        let mut run = policy.run();
        let mut asking = JoinSet::new();
        let mut late = 0;
        let bar = bar(policy.name(), self.arrivals.len());
        let begun = Instant::now() + HEAD_START;
        for arrival in self.arrivals {
            let due = begun + self.real(arrival.at);
            sleep_until(due).await;
            late += usize::from(due.elapsed() > TOLERANCE);
            asking.spawn(ask(loopback.request(arrival.prompt, arrival.completion)));
            run.requests += 1;
            bar.inc(1);
            while let Some(ended) = asking.try_join_next() {
                self.note(&mut run, ended.ok());
            }
        }
        self.await_rest(asking, &mut run).await;
        bar.finish_and_clear();
        if late * 100 > self.arrivals.len() {
            out.say(&format!(
                "note: {late} requests of the {} run went out more than {} late: this \
                 machine is too slow for the speed\n",
                policy.name(),
                ms(TOLERANCE)
            ))?;
        }
        Ok(run.finish())
    }

    /// Waits for the outstanding answers; requests without one after a timeout are lost.
    async fn await_rest(&self, mut asking: JoinSet<Account>, run: &mut Run) {
        let longest = self.arrivals.iter().map(|arrival| arrival.completion).max().unwrap_or(0);
        let generating = PER_TOKEN.saturating_mul(u32::try_from(longest).unwrap_or(u32::MAX));
        let patience = self.real(self.replay.max_wait.saturating_add(generating)) + GRACE;
        let end = Instant::now() + patience;
        while let Ok(Some(ended)) = timeout_at(end, asking.join_next()).await {
            self.note(run, ended.ok());
        }
    }

    /// A request that panicked leaves no result, and counts as lost.
    fn note(&self, run: &mut Run, account: Option<Account>) {
        let Some(account) = account else { return };
        let waited = self.traced(account.waited());
        run.add(account);
        if let Some(wait) = run.waits.last_mut() {
            *wait = waited;
        }
    }

    /// With unlimited Standard there is no reason for a refusal.
    fn check(&self, run: &Run) -> Result<(), Failure> {
        if self.replay.standard_tpm.is_none() && run.refused > 0 {
            return Err(format!(
                "{} policy: {} requests were refused although Standard was ample",
                run.policy, run.refused
            )
            .into());
        }
        Ok(())
    }

    /// A duration of the trace at the replay's speed.
    fn real(&self, traced: Duration) -> Duration {
        scaled(traced, 1.0 / self.replay.speedup)
    }

    /// A duration of the replay in the trace's time.
    fn traced(&self, real: Duration) -> Duration {
        scaled(real, self.replay.speedup)
    }
}

fn scaled(duration: Duration, factor: f64) -> Duration {
    let seconds = duration.as_secs_f64() * factor;
    Duration::try_from_secs_f64(seconds).unwrap_or(FOREVER).min(FOREVER)
}

/// On standard error, and only when that is a terminal.
fn bar(policy: &'static str, requests: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:>10} {wide_bar} {pos}/{len} {eta}");
    ProgressBar::new(requests as u64)
        .with_prefix(policy)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// What an output token costs a PTU of gpt-4o, in input tokens; the emulator's default.
const OUTPUT_WEIGHT: f64 = 3.0;
/// The drains that the emulator takes without moving them.
const MOST_DRAIN: (f64, f64) = (1e-3, 1e8);
/// How a mid-sized model answers.
const FIRST_TOKEN: Duration = Duration::from_millis(300);
const PER_TOKEN: Duration = Duration::from_millis(15);
/// For the connections to be made.
const HEAD_START: Duration = Duration::from_millis(20);
/// How late an arrival may be, in real time, before the replay is taken to lag.
const TOLERANCE: Duration = Duration::from_millis(10);
/// What a request may take beyond waiting and generating, in real time.
const GRACE: Duration = Duration::from_secs(30);
/// A century: no timer overflows.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 86_400);
