//! What `spillover emulate` takes.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;

#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
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

const EXAMPLES: &str = "\
Examples:
  spillover emulate                                   a PTU and three regions on free ports
  spillover emulate --listen 127.0.0.1:8101           the same on 8101, 8102, 8103 and 8104
  spillover emulate --config emulator.toml --seed 7

A configuration:
  seed = 7

  [[resources]]
  name = \"contoso-east\"
  region = \"East US\"
  key = \"key-east\"                 # or env:NAME, file:PATH; without one everybody may come
  listen = \"127.0.0.1:8101\"        # optional

  [[resources.deployments]]
  name = \"gpt-4o-ptu\"
  model = \"gpt-4o\"
  ptu = { tokens_per_second = 5000, bucket = \"10s\", output_weight = 3 }
  pace = { first_token = \"200ms\", per_token = \"15ms\" }
  spillover = \"gpt-4o\"             # Azure's own, optional
  hides_throttles = false

  [[resources.deployments]]
  name = \"gpt-4o\"
  standard = { tokens_per_minute = 60000, requests_per_minute = 360 }   # {} is unlimited
  faults = [                       # one for each of the next requests, in this order
    { pass = true, times = 2 },
    { status = 503, after = \"1s\", headers = { retry-after = \"5\" }, body = \"\" },
    { reset = true }, { cut_after = 3 }, { hidden_throttle = \"20s\" },
  ]

SIGINT or SIGTERM ends it, and it prints what each deployment did.";
