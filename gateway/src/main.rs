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

/// A gateway that makes Azure OpenAI's 429s stop mattering: PTU first, spill to Standard, rotate
/// regions.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check a configuration and say what is wrong with it; nothing listens.
    Check {
        /// The configuration, as TOML.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Fail on settings that do nothing, too, instead of warning of them.
        #[arg(long)]
        strict: bool,
    },
    /// Serve a configuration or, without one, a demonstration with its own Azure.
    Serve {
        /// The configuration, as TOML.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Listen here instead of where the configuration says.
        #[arg(long, value_name = "ADDRESS")]
        listen: Option<SocketAddr>,
    },
    /// Emulate Azure OpenAI resources on local ports.
    Emulate(emulate::EmulateArgs),
    /// Load targets with requests, and tell how they were served.
    Load(Box<load::LoadArgs>),
    /// Say what a running gateway did for one request: each attempt, each wait, and why.
    Why(why::WhyArgs),
    /// Print what a shell needs to complete this command's arguments.
    #[command(after_help = completions::EXAMPLES)]
    Completions { shell: clap_complete::Shell },
}

/// Ten thousand streams keep twenty thousand of hyper's buffers of 8 KiB, each with little in it.
/// Aligned to pages, as they are here, most of that is never touched; and what a peak took goes back
/// to the system ten seconds after it, by a thread of the allocator's: without one, it would go back bit by
/// bit with later requests, as it does where musl is the C library.
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
