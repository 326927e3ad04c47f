//! `spillover`: the gateway in front of Azure OpenAI deployments, and its tools.

#![allow(dead_code, reason = "the parts are being put together")]

mod account;
mod config;
mod running;
mod serve;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

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
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Check { config } => config::check(&config),
        Command::Serve { config, listen } => serve::run(config.as_deref(), listen),
    }
}
