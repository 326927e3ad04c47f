//! `spillover emulate`: Azure OpenAI resources on local ports, which refuse like the real ones.

mod args;
mod demo;
mod file;
mod listen;
mod site;

use std::{fmt::Write as _, io, pin::pin, process::ExitCode};

use spillover_emulator::Stats;

use self::listen::Listening;
pub(crate) use self::{args::EmulateArgs, demo::start as demo, site::Site};
use crate::output;

/// Emulates until a signal, then prints a summary.
pub(crate) fn run(args: &EmulateArgs) -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("no runtime: {error}"), NOT_STARTED),
    };
    let emulated = runtime.block_on(emulate(args));
    // A file may still be read.
    runtime.shutdown_background();
    match emulated {
        Ok(()) => ExitCode::SUCCESS,
        Err((problem, status)) => fail(&problem, status),
    }
}

/// The error has the problem and the exit status.
async fn emulate(args: &EmulateArgs) -> Result<(), (String, u8)> {
    let here = |problem: String| (problem, NOT_STARTED);
    // Before anything else: a signal without a handler ends the process.
    let mut stop = pin!(listen::stop_signal().map_err(here)?);
    let wanted = match args.file.as_ref().or(args.config.as_ref()).cloned() {
        Some(file) => {
            let loading = tokio::task::spawn_blocking(move || file::load(&file));
            let loaded = tokio::select! {
                loaded = loading => loaded.map_err(|error| here(error.to_string()))?,
                () = stop.as_mut() => return Ok(()),
            };
            loaded.map_err(|problems| (problems.join("\n"), WRONG_FILE))?
        }
        None => demo::wanted(),
    };
    let (emulator, places) = wanted.emulator(args.seed);
    let listening = Listening::start(&emulator, &places, args).await.map_err(here)?;
    let said = io::Write::write_all(&mut io::stdout(), listening.lines().as_bytes());
    said.map_err(|error| here(format!("cannot write the output: {error}")))?;
    stop.await;
    drop(listening);
    let _ = io::Write::write_all(&mut io::stdout(), summary(&emulator.stats()).as_bytes());
    Ok(())
}

/// A table of what each deployment did.
fn summary(stats: &Stats) -> String {
    let mut text = String::new();
    let names = stats.deployments.keys().map(|(resource, name)| resource.len() + name.len() + 1);
    let width = names.max().unwrap_or(0).max(10);
    let _ = writeln!(
        text,
        "{:width$} {:>9} {:>9} {:>9} {:>9} {:>11} {:>11}",
        "Deployment", "Attempts", "200", "429", "Failed", "Prompt", "Completion"
    );
    for ((resource, deployment), counts) in &stats.deployments {
        let name = format!("{resource}/{deployment}");
        let _ = writeln!(
            text,
            "{name:width$} {:>9} {:>9} {:>9} {:>9} {:>11} {:>11}",
            counts.attempts,
            counts.ok,
            counts.throttled,
            counts.failed,
            counts.prompt_tokens,
            counts.completion_tokens
        );
    }
    let _ = writeln!(
        text,
        "{} without a valid key ({} with another resource's key), {} unrouted",
        stats.unauthorized, stats.misplaced, stats.unrouted
    );
    text.push_str(LEGEND);
    text
}

fn fail(problem: &str, status: u8) -> ExitCode {
    output::report(problem);
    ExitCode::from(status)
}

const NOT_STARTED: u8 = 1;
const WRONG_FILE: u8 = 2;
const LEGEND: &str = "
Deployment          resource and name
Attempts            requests that came to it; 200 and 429 of them were answered so
Failed              everything else: faulty requests, scripted errors and resets
Prompt, Completion  tokens of the answers
";
