//! The arguments of `spillover load`.

use std::{path::PathBuf, time::Duration};

use clap::{ArgGroup, Args, ValueEnum};

use crate::{command_key::KeyHeader, duration};

#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
#[command(group = ArgGroup::new("where").args(["targets", "endpoint"]).required(true))]
#[command(group = ArgGroup::new("open").args(["rate", "trace"]))]
#[command(group = ArgGroup::new("sized").args(["trace", "prompt_tokens"]).multiple(true))]
pub(crate) struct LoadArgs {
    /// Targets file: a JSON array of `{endpoint, key}`, or TOML with `[[targets]]`.
    #[arg(long, value_name = "FILE", help_heading = "Targets")]
    pub(super) targets: Option<PathBuf>,
    /// A single target instead of a file.
    #[arg(long, value_name = "URL", help_heading = "Targets")]
    pub(super) endpoint: Option<String>,
    /// Its key, as env:NAME or file:PATH: command lines are visible to other users.
    #[arg(long, value_name = "SOURCE", requires = "endpoint", help_heading = "Targets")]
    pub(super) key: Option<String>,
    /// How to send keys, if the file does not specify it.
    #[arg(long, value_enum, default_value_t = KeyHeader::ApiKey, help_heading = "Targets")]
    pub(super) header: KeyHeader,
    /// Certificates to trust in addition to the public authorities, as PEM.
    #[arg(long, value_name = "FILE", help_heading = "Targets")]
    pub(super) trust: Option<PathBuf>,
    /// HTTP/2 instead of HTTP/1.1, even without TLS.
    #[arg(long, help_heading = "Targets")]
    pub(super) http2: bool,

    /// The deployment, or the model's name at a gateway.
    #[arg(long, value_name = "NAME", default_value = "gpt-4o", help_heading = "Requests")]
    pub(super) deployment: String,
    /// The operation to call.
    #[arg(long, value_enum, default_value_t = Api::Chat, help_heading = "Requests")]
    pub(super) api: Api,
    /// Whether the path or the body names the deployment.
    #[arg(long, value_enum, default_value_t = Grammar::Classic, help_heading = "Requests")]
    pub(super) grammar: Grammar,
    /// For the classic grammar [default: 2024-10-21; for responses 2025-03-01-preview].
    #[arg(long, value_name = "DATE", help_heading = "Requests")]
    pub(super) api_version: Option<String>,
    /// Request event streams; not available for embeddings.
    #[arg(long, help_heading = "Requests")]
    pub(super) stream: bool,
    /// Maximum tokens of an answer; embeddings have none.
    #[arg(long, value_name = "N", default_value_t = 500, help_heading = "Requests")]
    pub(super) max_tokens: u64,
    /// Approximate prompt length in tokens, instead of "Count to N..." with N from 50 to 100.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=2_000_000),
          help_heading = "Requests")]
    pub(super) prompt_tokens: Option<u64>,
    /// Make the emulator use exactly the tokens of the trace, or of --prompt-tokens and
    /// --max-tokens.
    #[arg(long, requires = "sized", help_heading = "Requests")]
    pub(super) exact: bool,
    /// Timeout of an answer, body included.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration::argument,
          help_heading = "Requests")]
    pub(super) timeout: Duration,
    /// Seed for prompts, targets and arrivals.
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Requests")]
    pub(super) seed: u64,

    /// Concurrent requests.
    #[arg(long, value_name = "N", default_value_t = 5, conflicts_with = "open",
          value_parser = clap::value_parser!(u32).range(1..=100_000),
          help_heading = "Closed loop (the next request follows an answer)")]
    pub(super) threads: u32,
    /// Total number of requests.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 10,
        conflicts_with = "open",
        help_heading = "Closed loop (the next request follows an answer)"
    )]
    pub(super) items: u64,
    /// Pause between an answer and the next request of a thread.
    #[arg(long, value_name = "TIME", default_value = "500ms", conflicts_with = "open",
          value_parser = duration::argument,
          help_heading = "Closed loop (the next request follows an answer)")]
    pub(super) think: Duration,

    /// Requests per second, independent of answers; Poisson arrivals.
    #[arg(long, value_name = "N", value_parser = rate,
          help_heading = "Open loop (arrivals do not wait for answers)")]
    pub(super) rate: Option<f64>,
    /// Constant intervals between the requests of --rate.
    #[arg(long, requires = "rate", help_heading = "Open loop (arrivals do not wait for answers)")]
    pub(super) uniform: bool,
    /// Length of the run [default: 60s with --rate, all of a --trace].
    #[arg(long, value_name = "TIME", requires = "open", value_parser = duration::argument,
          help_heading = "Open loop (arrivals do not wait for answers)")]
    pub(super) duration: Option<Duration>,
    /// Recorded arrivals: CSV with TIMESTAMP, ContextTokens and GeneratedTokens, as in the Azure
    /// LLM inference traces.
    #[arg(
        long,
        value_name = "FILE",
        help_heading = "Open loop (arrivals do not wait for answers)"
    )]
    pub(super) trace: Option<PathBuf>,
    /// Factor by which to speed up the recording.
    #[arg(long, value_name = "K", default_value_t = 1.0, requires = "trace", value_parser = rate,
          help_heading = "Open loop (arrivals do not wait for answers)")]
    pub(super) speedup: f64,
    /// Maximum requests in flight; further arrivals are not sent, and count as failed.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 10_000,
        help_heading = "Open loop (arrivals do not wait for answers)"
    )]
    pub(super) most_in_flight: usize,

    /// Print a line for every request.
    #[arg(long, help_heading = "Output")]
    pub(super) items_detail: bool,
    /// Print one JSON object on stdout; progress goes to stderr.
    #[arg(long, help_heading = "Output")]
    pub(super) json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Api {
    /// Chat completions.
    Chat,
    Responses,
    Embeddings,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Grammar {
    /// `/openai/deployments/NAME/chat/completions?api-version=DATE`; for responses
    /// `/openai/responses?api-version=DATE`, with the name in the body.
    Classic,
    /// `/openai/v1/chat/completions`, with the name in the body.
    V1,
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.001..=100_000.0).contains(&rate) => Ok(rate),
        _ => Err("is not a number from 0.001 to 100,000".to_owned()),
    }
}

const EXAMPLES: &str = "\
Examples:
  spillover load --targets json.env --deployment gpt-35-turbo --threads 5 --items 10
  spillover load --endpoint http://127.0.0.1:8080 --key env:TEAM_A_KEY --rate 20 --duration 60s
  spillover load --targets targets.toml --stream --prompt-tokens 1000 --max-tokens 200 --json
  spillover load --endpoint http://127.0.0.1:8080/openai/v1 --grammar v1 --api responses --stream
  spillover load --endpoint http://127.0.0.1:8080 --trace AzureLLMInferenceTrace_conv.csv --speedup 4

Targets as JSON (each request picks one at random; the key may be env:NAME or file:PATH):
  [ { \"endpoint\": \"https://contoso-east.openai.azure.com/\", \"key\": \"env:EAST_KEY\" },
    { \"name\": \"apim\", \"endpoint\": \"https://contoso.azure-api.net\", \"key\": \"file:apim.key\" } ]
As TOML:
  [[targets]]
  endpoint = \"https://contoso-east.openai.azure.com\"
  key = \"env:EAST_KEY\"
  header = \"bearer\"     # default: api-key

Durations have a unit: 4s, 250ms, 1m30s. Requests are never sent twice. In an open loop, latencies \
count from the planned arrival. On a terminal a bar shows the progress.

Exit status: 0 if every request succeeded; 1 if some did not; 2 if the arguments or targets are invalid, \
so that nothing was sent; 3 if there was no response; 130 after SIGINT.";
