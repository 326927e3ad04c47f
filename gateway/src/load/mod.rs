//! `spillover load`: sends load to targets and reports how requests were served.

mod args;
mod client;
mod clock;
mod drive;
mod exchange;
mod outcome;
mod plan;
mod progress;
mod report;
mod table;
mod tally;
mod targets;
mod trace;

use std::{
    process::ExitCode,
    sync::{Arc, atomic::AtomicUsize},
};

pub(crate) use self::args::LoadArgs;
use self::{
    args::Api,
    outcome::{Outcome, Run},
    plan::Plan,
    report::Out,
    targets::Target,
};
use crate::output;

/// Runs a load. The exit status shows whether every request succeeded.
pub(crate) fn run(args: LoadArgs) -> ExitCode {
    match load(args) {
        Ok(outcome) => ExitCode::from(status(&outcome)),
        Err(problem) => {
            output::report(&problem);
            ExitCode::from(NOT_SENT)
        }
    }
}

fn load(args: LoadArgs) -> Result<Outcome, String> {
    if args.stream && args.api == Api::Embeddings {
        return Err("embeddings do not stream: remove --stream".to_owned());
    }
    let targets = Target::all(&args)?;
    let plan = Plan::new(&args)?;
    let client = client::client(&args)?;
    let out = Out::new(args.json);
    let runtime = tokio::runtime::Runtime::new().map_err(|error| format!("no runtime: {error}"))?;
    let run = Arc::new(Run { args, targets, client, running: AtomicUsize::new(0) });
    let outcome = runtime.block_on(drive::drive(Arc::clone(&run), plan));
    // Do not wait for requests that a signal cut off.
    runtime.shutdown_background();
    out.result(&run, &outcome);
    Ok(outcome)
}

/// The exit status, as documented in the help.
fn status(outcome: &Outcome) -> u8 {
    let (all, tally) = (outcome.tally.all.count, &outcome.tally);
    match () {
        () if outcome.interrupted => INTERRUPTED,
        () if all > 0 && tally.failed() == all => NONE_ANSWERED,
        () if tally.successes() < all => NOT_ALL_SERVED,
        () => 0,
    }
}

const NOT_ALL_SERVED: u8 = 1;
const NOT_SENT: u8 = 2;
const NONE_ANSWERED: u8 = 3;
/// The shells' exit status after SIGINT.
const INTERRUPTED: u8 = 130;
