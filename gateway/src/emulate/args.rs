//! The arguments of `spillover emulate`.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;

#[derive(Clone, Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct EmulateArgs {
    /// What to emulate, as TOML [default: a PTU and three regions, without keys].
    #[arg(value_name = "FILE", conflicts_with = "config")]
    pub(super) file: Option<PathBuf>,
    /// The same.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Address of the first resource; the others get the following ports, or any free ports if the
    /// port is 0.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub(super) listen: SocketAddr,
    /// Serves all resources on the port of --listen, distinguished by the Host header (`NAME`,
    /// `NAME.openai.azure.com`).
    #[arg(long)]
    pub(super) shared: bool,
    /// Seed for completion lengths and ids, instead of the file's `seed`.
    #[arg(long, value_name = "N")]
    pub(super) seed: Option<u64>,
}

const HELP: &str = concat!(
    "\
Examples:
  spillover emulate                                   a PTU and three regions on free ports
  spillover emulate --listen 127.0.0.1:8101           the same on 8101, 8102, 8103 and 8104
  spillover emulate --config emulator.toml --seed 7

On SIGINT or SIGTERM it prints a summary per deployment and exits.

Exit status: 0 after a signal, 1 when it cannot start here (a port that is taken), 2 when something is \
wrong with its arguments or its file.

A configuration with every key:

",
    include_str!("example.toml")
);
