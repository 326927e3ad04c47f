//! The arguments of `spillover why`.

use std::path::PathBuf;

use clap::Args;

#[derive(Clone, Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct WhyArgs {
    /// An id of the request: x-request-id or apim-request-id of its answer, its client's
    /// x-ms-client-request-id, or its trace id.
    #[arg(value_name = "REQUEST_ID")]
    pub(super) id: String,
    /// URL of the gateway: listen.admin of its configuration, or its public address with the key of
    /// a client that may operate.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9090")]
    pub(super) admin: String,
    /// The key, as env:NAME or file:PATH: command lines are visible to other users.
    #[arg(long, value_name = "SOURCE")]
    pub(super) key: Option<String>,
    /// Certificates to trust in addition to the public authorities, as PEM.
    #[arg(long, value_name = "FILE")]
    pub(super) trust: Option<PathBuf>,
    /// Print the requests as JSON, in the format of /-/requests.
    #[arg(long)]
    pub(super) json: bool,
}

const HELP: &str = "\
Examples:
  spillover why 2f1c9a34c0de5f66
  spillover why 2f1c9a34c0de5f66 --admin https://gateway.contoso.com --key env:OPERATOR_KEY

Each replica keeps its last requests in memory (telemetry.recent_requests, 1000 by default). If a client \
reused an id, all requests with it are printed.

Exit status: 0 if found; 1 if no request has the id; 2 if the gateway cannot be queried.";
