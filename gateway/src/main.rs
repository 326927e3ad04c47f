//! `spillover`: the gateway in front of Azure OpenAI deployments, and its tools.

#![allow(unreachable_pub, reason = "nothing outside of a binary can reach it")]

mod access_record;
mod api;
mod client_tokens;
mod command_key;
mod completions;
mod config;
mod dial;
mod duration;
mod emulate;
mod entra;
mod files;
mod fleet;
mod http_client;
mod init;
mod load;
mod output;
mod serve;
mod snapshot;
mod telemetry;
mod tls_roots;
mod utilization;
mod why;

use std::{io, net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};

/// A gateway that absorbs Azure OpenAI's 429s: PTU first, spill to Standard, rotate regions.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100, after_help = HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write an initial configuration, or convert one of LiteLLM or API Management.
    Init(init::InitArgs),
    /// Check a configuration and report all problems; starts nothing.
    #[command(after_help = CHECK_HELP)]
    Check {
        /// The configuration file (TOML).
        #[arg(value_name = "FILE", required_unless_present = "config", conflicts_with = "config")]
        file: Option<PathBuf>,
        /// The same.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Fail on settings that have no effect, instead of warning of them.
        #[arg(long)]
        strict: bool,
    },
    /// Serve a configuration, or without one a demonstration with emulated resources.
    #[command(after_help = SERVE_HELP)]
    Serve {
        /// The configuration file (TOML).
        #[arg(value_name = "FILE", conflicts_with = "config")]
        file: Option<PathBuf>,
        /// The same.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Listen on this address instead of the configured one.
        #[arg(long, value_name = "ADDRESS")]
        listen: Option<SocketAddr>,
    },
    /// Emulate Azure OpenAI resources on local ports.
    Emulate(emulate::EmulateArgs),
    /// Send load to targets and report how requests were served.
    Load(Box<load::LoadArgs>),
    /// Explain what a running gateway did for one request: each attempt, each wait, and why.
    Why(why::WhyArgs),
    /// Print the completion script for a shell.
    #[command(after_help = completions::EXAMPLES)]
    Completions { shell: clap_complete::Shell },
}

/// hyper keeps two buffers of 8 KiB per stream, mostly untouched: 20,000 for ten thousand streams.
/// With page-aligned allocations, as here, the untouched pages stay unmapped. A thread of the
/// allocator returns a peak's memory to the system after ten seconds; without it, as on musl,
/// memory would be returned gradually by later requests.
#[cfg(not(test))] // Tests count allocations with one of their own.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    output::survive_limits();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(help_or_error) => return print(&help_or_error),
    };
    match cli.command {
        Command::Init(args) => init::run(&args),
        Command::Check { file, config, strict } => {
            // Clap requires one of the two.
            let file = file.or(config).unwrap_or_default();
            config::check(&file, strict, serve::try_to_build)
        }
        Command::Serve { file, config, listen } => serve::run(file.or(config).as_deref(), listen),
        Command::Emulate(args) => emulate::run(&args),
        Command::Load(args) => load::run(*args),
        Command::Why(args) => why::run(&args),
        Command::Completions { shell } => completions::print(Cli::command(), shell),
    }
}

/// Prints help, the version or an error of the arguments. Help that cannot be written is a failure;
/// a reader that has gone is not.
fn print(help_or_error: &clap::Error) -> ExitCode {
    match help_or_error.print() {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe && !help_or_error.use_stderr() => {
            output::report_unwritten(&error)
        }
        _ => ExitCode::from(u8::try_from(help_or_error.exit_code()).unwrap_or(2)),
    }
}

const HELP: &str = "\
Durations have a unit: 4s, 250ms, 1m30s. Secrets are given by reference, as env:NAME or file:PATH.

Exit status: 0 on success; 2 if arguments or files are invalid, so that nothing was started; others as \
documented in each command's help.";

const CHECK_HELP: &str = "\
Prints every problem on standard error, with its location, its key and its remedy.

Exit status, the same as of serve with this file: 0 if it is valid, 2 if it has problems or, with \
--strict, settings without effect.";

const SERVE_HELP: &str = "\
The file is reloaded when it changes, and on SIGHUP. SIGTERM or SIGINT exits after the requests in flight, \
a second signal immediately.

Exit status: 0 after a signal, 1 if it cannot start (for example, if an address is in use), 2 if the \
configuration is invalid; `check` reports why.";
