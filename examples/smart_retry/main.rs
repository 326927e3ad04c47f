//! PTU first, then Standard: a burst, a real endpoint or a replayed trace, with one command.
//!
//! ```text
//! cargo run --release --example smart_retry                        # no account needed
//! cargo run --release --example smart_retry -- --help
//! cargo run --release --example smart_retry -- --trace FILE --speedup 20 --minutes 10
//! ```

#![allow(clippy::disallowed_methods, reason = "a program times its requests and paces arrivals")]

mod account;
mod args;
mod burst;
mod job;
mod live;
mod loopback;
mod replay;
mod report;
mod trace;

use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
};

use job::Job;
use report::Out;

/// The reason for an early end, for the user.
type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    let (job, json) = args::read();
    let mut out = Out::new(json);
    let done = match job {
        Job::Burst => burst::run(&mut out).await,
        Job::Live(live) => live::run(&live, &mut out).await,
        Job::Replay(replay) => replay::run(&replay, &mut out).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of the output has closed it.
        Err(error) if is_broken_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            // There is no way to report that this fails, too.
            _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
