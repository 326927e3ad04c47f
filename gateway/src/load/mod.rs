//! `spillover load`: sends load to targets and reports how requests were served.

mod args;
mod client;
mod clock;
mod drive;
mod exchange;
mod outcome;
mod plan;
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
use self::{args::Api, outcome::Run, plan::Plan, report::Out, targets::Target};
use crate::output;

/// Runs a load; fails if there was no answer.
pub(crate) fn run(args: LoadArgs) -> ExitCode {
    match load(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            output::report(&problem);
            ExitCode::FAILURE
        }
    }
}

fn load(args: LoadArgs) -> Result<bool, String> {
    if args.stream && args.api == Api::Embeddings {
        return Err("embeddings do not stream: remove --stream".to_owned());
    }
    let targets = Target::all(&args)?;
    let plan = Plan::new(&args)?;
    let client = client::client(&args)?;
    let out = Out::new(args.json);
    let runtime = tokio::runtime::Runtime::new().map_err(|error| format!("no runtime: {error}"))?;
    let run = Arc::new(Run { args, targets, client, running: AtomicUsize::new(0) });
    let outcome = runtime.block_on(drive::drive(Arc::clone(&run), plan, &out));
    // Do not wait for requests that a signal cut off.
    runtime.shutdown_background();
    out.result(&run, &outcome);
    Ok(outcome.tally.all.count > outcome.tally.failed() || outcome.tally.all.count == 0)
}
