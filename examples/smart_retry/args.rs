//! The command line: its arguments, what they may be, and their help.

use std::{path::PathBuf, time::Duration};

use clap::{CommandFactory, Parser, error::ErrorKind};

use crate::job::Job;

/// Spends a PTU deployment first, waits for it while that is worth it, and spills to Standard.
///
/// Without arguments and environment: starts an emulated Azure OpenAI on loopback, sends it a burst
/// that overruns it, and shows every way in which a request can end. No account is needed.
#[derive(Debug, Parser)]
#[command(name = "smart_retry", after_long_help = ENVIRONMENT, max_term_width = 100)]
pub(crate) struct Args {
    /// Prompts for the real endpoint that the environment names, sent one after the other
    #[arg(value_name = "PROMPT")]
    pub(crate) prompts: Vec<String>,

    /// Print one JSON object on standard output; lines for people go to standard error
    ///
    /// {"runs":[{"policy":"spillover"|"reference","requests","ok","refused","lost","spilled","rotated",
    /// "attempts","attempts_per_success","wait_ms":{"p50","p95","p99","max"},
    /// "by_backend":{name:{"attempts","ok","throttled"}}}]}. `refused` are the 429s that callers saw;
    /// `lost` had neither a response nor an error; a request that failed in another way is in none
    /// of `ok`, `refused` and `lost`, and makes the exit status 1.
    #[arg(long)]
    pub(crate) json: bool,

    /// The longest wait for the PTU in milliseconds [default: $PTU_MAX_WAIT, or else 4000]
    #[arg(long, value_name = "MS", allow_negative_numbers = true, value_parser = millis)]
    pub(crate) max_wait: Option<Duration>,

    /// The api-version of requests to the real endpoint [default: $OPENAI_API_VERSION, or else
    /// 2024-02-01]
    #[arg(long, value_name = "DATE", value_parser = api_version, conflicts_with = "trace")]
    pub(crate) api_version: Option<String>,

    /// Replay this CSV file (TIMESTAMP,ContextTokens,GeneratedTokens) against the emulator, once
    /// with this library and once with the rule of the reference script
    #[arg(long, value_name = "FILE", conflicts_with = "prompts", help_heading = TRACE)]
    pub(crate) trace: Option<PathBuf>,

    /// Replay N times as fast
    ///
    /// Arrivals, the PTU's drain, answers and waits are all N times as fast, and what is reported
    /// is in the trace's time, so that figures at different speeds can be compared. Timers are exact
    /// to a millisecond, which is N milliseconds of the trace.
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value = "20", value_parser = speedup, requires = "trace",
        help_heading = TRACE)]
    pub(crate) speedup: f64,

    /// Replay the first M requests only
    #[arg(long, value_name = "M", allow_negative_numbers = true, value_parser = limit, requires = "trace", help_heading = TRACE)]
    pub(crate) limit: Option<usize>,

    /// Replay the first M minutes of the trace only
    #[arg(long, value_name = "M", allow_negative_numbers = true, value_parser = minutes, requires = "trace", help_heading = TRACE)]
    pub(crate) minutes: Option<Duration>,

    /// Size the PTU for this share of the trace's mean load
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true, default_value = "0.7", value_parser = fraction,
        requires = "trace", help_heading = TRACE)]
    pub(crate) ptu_fraction: f64,

    /// The depth of the PTU's bucket, in seconds of the trace
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, default_value = "10", value_parser = seconds,
        requires = "trace", help_heading = TRACE)]
    pub(crate) bucket: Duration,

    /// Limit each Standard region to so many tokens a minute; without it Standard is ample
    ///
    /// Only with --speedup 1, as the emulator's quota windows last a minute of real time.
    #[arg(long, value_name = "TOKENS", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..),
        requires = "trace", help_heading = TRACE)]
    pub(crate) standard_tpm: Option<u64>,
}

/// Reads the process's arguments and environment; exits with an explanation when they are wrong.
pub(crate) fn read() -> (Job, bool) {
    let args = Args::parse();
    let json = args.json;
    match Job::choose(args, |name| std::env::var_os(name)) {
        Ok(job) => (job, json),
        Err(problem) => Args::command().error(ErrorKind::ValueValidation, problem).exit(),
    }
}

pub(crate) fn millis(value: &str) -> Result<Duration, String> {
    let range = 0..=86_400_000;
    let wait = value.parse().ok().filter(|wait| range.contains(wait));
    wait.map(Duration::from_millis)
        .ok_or_else(|| "use whole milliseconds from 0 to 86400000, such as 4000".to_owned())
}

pub(crate) fn retries(value: &str) -> Result<u32, String> {
    let retries = value.parse().ok().filter(|retries| *retries <= 100);
    retries.ok_or_else(|| "use a whole number from 0 to 100, such as 2".to_owned())
}

pub(crate) fn api_version(value: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if value.is_empty() || value.len() > 64 || !value.bytes().all(plain) {
        return Err("use an api-version such as 2024-02-01".to_owned());
    }
    Ok(value.to_owned())
}

fn limit(value: &str) -> Result<usize, String> {
    let limit = value.parse().ok().filter(|limit| *limit > 0);
    limit.ok_or_else(|| "use a whole number from 1 on".to_owned())
}

fn number(value: &str, low: f64, high: f64) -> Result<f64, String> {
    let number = value.parse().ok().filter(|number| (low..=high).contains(number));
    number.ok_or_else(|| format!("use a number from {low} to {high}"))
}

fn speedup(value: &str) -> Result<f64, String> {
    number(value, 0.1, 1_000.0)
}

fn fraction(value: &str) -> Result<f64, String> {
    number(value, 0.001, 100.0)
}

fn minutes(value: &str) -> Result<Duration, String> {
    number(value, 0.01, 1_000_000.0).map(|minutes| Duration::from_secs_f64(minutes * 60.0))
}

fn seconds(value: &str) -> Result<Duration, String> {
    number(value, 0.1, 3_600.0).map(Duration::from_secs_f64)
}

const TRACE: &str = "Replaying a trace";

const ENVIRONMENT: &str = "\
Environment, for a real endpoint (all of the first four, or none):
  OPENAI_API_BASE      the resource, such as https://contoso.openai.azure.com; http:// works too
  OPENAI_API_KEY       its key; never printed
  PTU_DEPLOYMENT       the provisioned deployment, asked first
  STANDARD_DEPLOYMENT  the pay-as-you-go deployment to spill to
  PTU_MAX_WAIT         the longest wait for the PTU in milliseconds [default: 4000]
  MAX_RETRIES          how often Standard is asked again after a refusal, waiting as long as it says
                       and a minute at most [default: 0]. In the reference script this also retries
                       the PTU inside the SDK, past PTU_MAX_WAIT; here it does not.
  OPENAI_API_VERSION   [default: 2024-02-01]

Examples:
  smart_retry
  smart_retry 'Why is the sky blue?' 'And at night?'
  smart_retry --trace AzureLLMInferenceTrace_code.csv --speedup 20 --minutes 10
  smart_retry --trace trace.csv --limit 500 --ptu-fraction 1.0 --json

Traces: https://github.com/Azure/AzurePublicDataset, \"Azure LLM inference trace\".";
