//! `spillover`: the gateway in front of Azure OpenAI deployments, and its tools.

#![allow(unreachable_pub, reason = "nothing outside of a binary can reach it")]

mod access_record;
mod api;
mod client_tokens;
mod command_key;
mod completions;
mod config;
mod dial;
mod emulate;
mod entra;
mod files;
mod http_client;
mod load;
mod output;
mod serve;
mod snapshot;
mod telemetry;
mod tls_roots;
mod utilization;
mod why;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};

/// A gateway that absorbs Azure OpenAI's 429s: PTU first, spill to Standard, rotate regions.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check a configuration and report all problems; starts nothing.
    Check {
        /// The configuration file (TOML).
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Fail on settings that have no effect, instead of warning of them.
        #[arg(long)]
        strict: bool,
    },
    /// Serve a configuration, or without one a demonstration with emulated resources.
    Serve {
        /// The configuration file (TOML).
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
    match Cli::parse().command {
        Command::Check { config, strict } => config::check(&config, strict),
        Command::Serve { config, listen } => serve::run(config.as_deref(), listen),
        Command::Emulate(args) => emulate::run(&args),
        Command::Load(args) => load::run(*args),
        Command::Why(args) => why::run(&args),
        Command::Completions { shell } => {
            completions::print(Cli::command(), shell);
            ExitCode::SUCCESS
        }
    }
}
