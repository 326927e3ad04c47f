//! What `spillover emulate` takes.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;

#[derive(Clone, Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct EmulateArgs {
    /// What to emulate, as TOML [default: a PTU and three regions, open to everybody].
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Where the first resource listens; the next ones take the ports after it, or any free ones
    /// when the port is 0.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub(super) listen: SocketAddr,
    /// Puts all resources on the one port of --listen; a request's Host tells them apart
    /// (`NAME`, `NAME.openai.azure.com`).
    #[arg(long)]
    pub(super) shared: bool,
    /// Seeds the lengths of completions and the ids, instead of the file's `seed`.
    #[arg(long, value_name = "N")]
    pub(super) seed: Option<u64>,
}

const HELP: &str = concat!(
    "\
Examples:
  spillover emulate                                   a PTU and three regions on free ports
  spillover emulate --listen 127.0.0.1:8101           the same on 8101, 8102, 8103 and 8104
  spillover emulate --config emulator.toml --seed 7

SIGINT or SIGTERM ends it, and it prints what each deployment did.

A configuration with every key:

",
    include_str!("example.toml")
);
