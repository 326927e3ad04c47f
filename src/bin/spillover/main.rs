//! `spillover`: the gateway in front of Azure OpenAI deployments, and its tools.

#![allow(dead_code, reason = "the parts are being put together")]

mod account;
mod config;
mod entra;
mod operations;
mod outbound;
mod running;

use std::{path::PathBuf, process::ExitCode};

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
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Check { config } => config::check(&config),
    }
}
