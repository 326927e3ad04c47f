//! Runs on all cores, with a progress bar.

use std::{collections::VecDeque, mem, sync::Mutex, thread, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use spillover_simulator::{Curve, Load, Policy, SimReport, Simulation};
use tower_spillover::ConfigError;

use crate::args::Args;

/// The requested policies. With `all`, skips those that this build cannot run, with a note.
pub(crate) fn wired(args: &Args) -> Result<Vec<Policy>, String> {
    let policies = args.policies()?;
    if args.policy != "all" {
        return Ok(policies);
    }
    let wired = |policy: &Policy| match runs(*policy) {
        Ok(()) => true,
        Err(error) => {
            eprintln!("note: {error}");
            false
        }
    };
    Ok(policies.into_iter().filter(wired).collect())
}

/// Runs every policy, and the policies that wait again for each of `waits`.
pub(crate) fn all(
    simulation: &Simulation,
    policies: &[Policy],
    waits: &[Duration],
) -> Result<(Vec<SimReport>, Vec<Curve>), ConfigError> {
    let mut jobs: Vec<Job> = policies.iter().map(|&p| (simulation.clone(), p)).collect();
    for &wait in waits {
        let waiting = policies.iter().filter(|policy| policy.waits());
        jobs.extend(waiting.map(|&policy| (simulation.clone().max_wait(wait), policy)));
    }
    let mut reports = batch(&jobs)?;
    let bought = reports.split_off(policies.len());
    let curve = |policy: &Policy| Curve {
        policy: *policy,
        points: (bought.iter().filter(|report| report.policy == *policy))
            .map(|report| (report.max_wait.as_secs_f64(), report.spilled_tokens, report.added.p99))
            .collect(),
    };
    let curves = policies.iter().filter(|policy| policy.waits()).map(curve).collect();
    Ok((reports, curves))
}

/// One run of one policy.
pub(crate) type Job = (Simulation, Policy);

/// The reports of all jobs in order, without the per-request results: hundreds of runs would fill
/// the memory with them.
pub(crate) fn batch(jobs: &[Job]) -> Result<Vec<SimReport>, ConfigError> {
    let bar = ProgressBar::new(jobs.len() as u64 * 1_000);
    let style = "{bar:40} {percent:>3} %  elapsed {elapsed}, ETA {eta}  {msg}";
    bar.set_style(ProgressStyle::with_template(style).expect("the template is a valid one"));
    // Start the long jobs first, so that no thread is still busy with one at the end.
    let mut order: Vec<_> = (0..jobs.len()).collect();
    order.sort_by_key(|&index| !asks_often(jobs[index].1));
    let queue = Mutex::new(VecDeque::from(order));
    let done = Mutex::new(Vec::new());
    let next = || queue.lock().expect("no thread panics with the lock").pop_front();
    let work = || {
        while let Some(index) = next() {
            let result = run(&jobs[index], &bar);
            done.lock().expect("no thread panics with the lock").push((index, result));
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(jobs.len());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    bar.finish_and_clear();
    let mut done = done.into_inner().expect("no thread panics with the lock");
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

fn run((simulation, policy): &Job, bar: &ProgressBar) -> Result<SimReport, ConfigError> {
    bar.set_message(policy.name());
    let mut counted = 0;
    let report = simulation.watch(*policy, |share| {
        let reached = (share * 1_000.0) as u64;
        bar.inc(reached.saturating_sub(counted));
        counted = counted.max(reached);
    });
    bar.inc(1_000 - counted.min(1_000));
    report.map(|mut report| {
        mem::take(&mut report.fates);
        report
    })
}

/// Whether `policy` may make tens of attempts per success, which dominate the run time.
const fn asks_often(policy: Policy) -> bool {
    matches!(policy, Policy::Reference | Policy::Shared)
}

/// Checks that this build can run `policy`, by simulating one second.
fn runs(policy: Policy) -> Result<(), ConfigError> {
    let second = Duration::from_secs(1);
    let simulation = Simulation::new(Load::Poisson { rate: 1.0 }).length(second);
    simulation.warm_up(Duration::ZERO).run(policy).map(drop)
}
