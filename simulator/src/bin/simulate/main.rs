//! Compares policies for a PTU under a load, in virtual time.
//!
//! `cargo run --release -p spillover-simulator -- --help` lists the options; the default is a
//! bursty load on a PTU sized for its mean. `-- --trace FILE --ptu-fraction 0.7 --svg picture.svg`
//! simulates a trace with the columns of the Azure LLM inference traces and draws it.

mod args;
mod conversations;
mod matrix;
mod report;
mod runs;
mod settings;

use std::{error::Error, fs, io::Write, process::ExitCode};

use spillover_simulator::{SimReport, svg, table};

use self::args::Args;

fn main() -> ExitCode {
    let args = Args::read();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    if let Some(file) = &args.report {
        return report::write(args, file);
    }
    if args.matrix || args.worlds.is_some() {
        return write(&matrix::compare(args)?);
    }
    if let Some(count) = args.conversations {
        return write(&conversations::compare(args, count)?);
    }
    let load = args.load()?;
    let simulation = args.simulation(load);
    let policies = runs::wired(args)?;
    let (requests, length, mean) = simulation.offered()?;
    let title = args.title(requests, length, mean);
    let curve_waits = if args.svg.is_some() { args.curve_waits() } else { Vec::new() };
    let (reports, curves) = runs::all(&simulation, &policies, &curve_waits)?;
    if let Some(file) = &args.svg {
        fs::write(file, svg(&title, &reports, &curves))
            .map_err(|error| format!("--svg {}: {error}", file.display()))?;
    }
    print(args, &title, &reports)?;
    Ok(())
}

fn print(args: &Args, title: &str, reports: &[SimReport]) -> Result<(), Box<dyn Error>> {
    let text = if args.json {
        let list: Vec<_> = reports.iter().map(SimReport::to_json).collect();
        format!("{}\n", serde_json::to_string_pretty(&list)?)
    } else {
        format!("{title}\n\n{}", table(reports))
    };
    write(&text)
}

fn write(text: &str) -> Result<(), Box<dyn Error>> {
    match std::io::stdout().write_all(text.as_bytes()) {
        // A reader such as `head` may close the pipe early; that is not an error.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}
