//! The command line and the environment, and the job that they ask for.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{CommandFactory, Parser, error::ErrorKind};
use http::{HeaderValue, Uri};

/// What to do.
#[derive(Debug)]
pub(crate) enum Job {
    Burst,
    Live(Box<Live>),
    Replay(Replay),
}

/// A conversation with a real endpoint.
#[derive(Debug)]
pub(crate) struct Live {
    /// Scheme, authority and base path, without a slash at its end.
    pub(crate) endpoint: String,
    /// Marked as sensitive, so that no `Debug` prints it.
    pub(crate) key: HeaderValue,
    pub(crate) ptu: String,
    pub(crate) standard: String,
    pub(crate) api_version: String,
    pub(crate) max_wait: Duration,
    pub(crate) max_retries: u32,
    pub(crate) prompts: Vec<String>,
}

/// A replay against the emulator. Durations are the trace's.
#[derive(Debug)]
pub(crate) struct Replay {
    pub(crate) trace: PathBuf,
    pub(crate) speedup: f64,
    pub(crate) limit: usize,
    pub(crate) span: Option<Duration>,
    pub(crate) ptu_fraction: f64,
    pub(crate) bucket: Duration,
    pub(crate) max_wait: Duration,
    pub(crate) standard_tpm: Option<u64>,
}

/// Spends a PTU deployment first, waits for it while that is worth it, and spills to Standard.
///
/// Without arguments and environment: starts an emulated Azure OpenAI on loopback, sends it a burst
/// that overruns it, and shows every way in which a request can end. No account is needed.
#[derive(Debug, Parser)]
#[command(name = "smart_retry", after_long_help = ENVIRONMENT, max_term_width = 100)]
struct Args {
    /// Prompts for the real endpoint that the environment names, sent one after the other
    #[arg(value_name = "PROMPT")]
    prompts: Vec<String>,

    /// Print one JSON object on standard output; lines for people go to standard error
    ///
    /// {"runs":[{"policy":"spillover"|"reference","requests","ok","refused","lost","spilled","rotated",
    /// "attempts","attempts_per_success","wait_ms":{"p50","p95","p99","max"},
    /// "by_backend":{name:{"attempts","ok","throttled"}}}]}. `refused` are the 429s that callers saw;
    /// `lost` had neither a response nor an error; a request that failed in another way is in none
    /// of `ok`, `refused` and `lost`, and makes the exit status 1.
    #[arg(long)]
    json: bool,

    /// The longest wait for the PTU in milliseconds [default: $PTU_MAX_WAIT, or else 4000]
    #[arg(long, value_name = "MS", value_parser = millis)]
    max_wait: Option<Duration>,

    /// The api-version of requests to the real endpoint [default: $OPENAI_API_VERSION, or else
    /// 2024-02-01]
    #[arg(long, value_name = "DATE", value_parser = api_version, conflicts_with = "trace")]
    api_version: Option<String>,

    /// Replay this CSV file (TIMESTAMP,ContextTokens,GeneratedTokens) against the emulator, once
    /// with this library and once with the rule of the reference script
    #[arg(long, value_name = "FILE", conflicts_with = "prompts", help_heading = TRACE)]
    trace: Option<PathBuf>,

    /// Replay N times as fast
    ///
    /// Arrivals, the PTU's drain, answers and waits are all N times as fast, and what is reported
    /// is in the trace's time, so that figures at different speeds can be compared. Timers are exact
    /// to a millisecond, which is N milliseconds of the trace.
    #[arg(long, value_name = "N", default_value = "20", value_parser = speedup, requires = "trace",
        help_heading = TRACE)]
    speedup: f64,

    /// Replay the first M requests only
    #[arg(long, value_name = "M", value_parser = limit, requires = "trace", help_heading = TRACE)]
    limit: Option<usize>,

    /// Replay the first M minutes of the trace only
    #[arg(long, value_name = "M", value_parser = minutes, requires = "trace", help_heading = TRACE)]
    minutes: Option<Duration>,

    /// Size the PTU for this share of the trace's mean load
    #[arg(long, value_name = "SHARE", default_value = "0.7", value_parser = fraction,
        requires = "trace", help_heading = TRACE)]
    ptu_fraction: f64,

    /// The depth of the PTU's bucket, in seconds of the trace
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds,
        requires = "trace", help_heading = TRACE)]
    bucket: Duration,

    /// Limit each Standard region to so many tokens a minute; without it Standard is ample
    ///
    /// Only with --speedup 1, as the emulator's quota windows last a minute of real time.
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u64).range(1..),
        requires = "trace", help_heading = TRACE)]
    standard_tpm: Option<u64>,
}

/// Reads the process's arguments and environment; exits with an explanation when they are wrong.
pub(crate) fn read() -> (Job, bool) {
    let args = Args::parse();
    let json = args.json;
    match args.choose(|name| std::env::var_os(name)) {
        Ok(job) => (job, json),
        Err(problem) => Args::command().error(ErrorKind::ValueValidation, problem).exit(),
    }
}

impl Args {
    fn choose(self, env: impl Fn(&str) -> Option<OsString>) -> Result<Job, String> {
        let env = |name| match env(name).map(OsString::into_string) {
            Some(Ok(value)) => Ok(Some(value).filter(|value| !value.is_empty())),
            Some(Err(_)) => Err(format!("{name} is not UTF-8: set it to plain text")),
            None => Ok(None),
        };
        if let Some(trace) = self.trace.clone() {
            return self.replay(trace, env).map(Job::Replay);
        }
        let mut values = Vec::new();
        for name in REQUIRED {
            values.push(env(name)?);
        }
        let mut tuning = false;
        for name in OPTIONAL {
            tuning |= env(name)?.is_some();
        }
        if let [Some(base), Some(key), Some(ptu), Some(standard)] = values.as_slice() {
            return self.live([base, key, ptu, standard], env).map(|live| Job::Live(live.into()));
        }
        self.demonstrate(&values, tuning)
    }

    /// Nothing may have been asked for that a demonstration would ignore.
    fn demonstrate(self, values: &[Option<String>], tuning: bool) -> Result<Job, String> {
        let missing = || {
            let named = REQUIRED.iter().zip(values).filter(|(_, value)| value.is_none());
            named.map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
        };
        if tuning || values.iter().any(Option::is_some) {
            return Err(format!(
                "the environment names an endpoint only in part: set {} as well, or none of {} \
                 for a demonstration against the emulator",
                missing(),
                [&REQUIRED[..], &OPTIONAL[..]].concat().join(", "),
            ));
        }
        let live_only = [
            ("PROMPT", !self.prompts.is_empty()),
            ("--api-version", self.api_version.is_some()),
            ("--max-wait", self.max_wait.is_some()),
        ];
        if let Some((name, _)) = live_only.iter().find(|(_, given)| *given) {
            return Err(format!(
                "{name} needs an endpoint to send to: set {}{}",
                missing(),
                if *name == "--max-wait" { ", or name a --trace" } else { "" },
            ));
        }
        Ok(Job::Burst)
    }

    fn live(
        self,
        [base, key, ptu, standard]: [&String; 4],
        env: impl Fn(&'static str) -> Result<Option<String>, String>,
    ) -> Result<Live, String> {
        let mut key = HeaderValue::from_str(key.trim()).map_err(|_| {
            "OPENAI_API_KEY has characters that a header cannot carry: copy the key again from \
             the Azure portal, Keys and Endpoint"
        })?;
        key.set_sensitive(true);
        if ptu == standard {
            return Err(format!(
                "PTU_DEPLOYMENT and STANDARD_DEPLOYMENT are both `{}`: name two deployments, or \
                 there is nothing to spill to",
                ptu.escape_debug(),
            ));
        }
        let version = match self.api_version {
            Some(version) => version,
            None => from_env(&env, "OPENAI_API_VERSION", api_version)?
                .unwrap_or_else(|| "2024-02-01".to_owned()),
        };
        Ok(Live {
            endpoint: endpoint(base)?,
            key,
            ptu: ptu.clone(),
            standard: standard.clone(),
            api_version: version,
            max_wait: max_wait(self.max_wait, &env)?,
            max_retries: from_env(&env, "MAX_RETRIES", retries)?.unwrap_or(0),
            prompts: self.prompts,
        })
    }

    fn replay(
        self,
        trace: PathBuf,
        env: impl Fn(&'static str) -> Result<Option<String>, String>,
    ) -> Result<Replay, String> {
        if self.standard_tpm.is_some() && self.speedup != 1.0 {
            return Err("--standard-tpm needs --speedup 1: the emulator's quota windows last a \
                        minute of real time, whatever the speed"
                .to_owned());
        }
        if self.bucket.div_f64(self.speedup) < Duration::from_millis(1) {
            return Err(format!(
                "--bucket lasts less than a millisecond at --speedup {}: name a longer one, or a \
                 lower speed",
                self.speedup
            ));
        }
        Ok(Replay {
            trace,
            speedup: self.speedup,
            limit: self.limit.unwrap_or(usize::MAX),
            span: self.minutes,
            ptu_fraction: self.ptu_fraction,
            bucket: self.bucket,
            max_wait: max_wait(self.max_wait, env)?,
            standard_tpm: self.standard_tpm,
        })
    }
}

fn max_wait(
    given: Option<Duration>,
    env: impl Fn(&'static str) -> Result<Option<String>, String>,
) -> Result<Duration, String> {
    match given {
        Some(wait) => Ok(wait),
        None => Ok(from_env(env, "PTU_MAX_WAIT", millis)?.unwrap_or(Duration::from_millis(4_000))),
    }
}

fn from_env<T>(
    env: impl Fn(&'static str) -> Result<Option<String>, String>,
    name: &'static str,
    parse: fn(&str) -> Result<T, String>,
) -> Result<Option<T>, String> {
    let Some(value) = env(name)? else { return Ok(None) };
    let wrong = |problem| format!("{name} is `{}`: {problem}", value.escape_debug());
    parse(value.trim()).map(Some).map_err(wrong)
}

/// The endpoint as the portal shows it; a pasted `/openai` or `/openai/v1` is cut off, since the
/// requests bring theirs.
fn endpoint(value: &str) -> Result<String, String> {
    let wrong = |problem: &str| {
        format!("OPENAI_API_BASE {problem}: write it as in https://contoso.openai.azure.com")
    };
    let uri: Uri = value.trim().parse().map_err(|_| wrong("is not an address"))?;
    let scheme = uri.scheme_str().ok_or_else(|| wrong("does not start with https://"))?;
    if !["http", "https"].contains(&scheme) {
        return Err(wrong("does not start with https:// or http://"));
    }
    let authority = uri.authority().filter(|authority| !authority.host().is_empty());
    let authority = authority.ok_or_else(|| wrong("names no host"))?;
    if authority.as_str().contains('@') {
        return Err(wrong("carries a user or a password"));
    }
    if uri.query().is_some() {
        return Err(wrong("has a query"));
    }
    let path = uri.path().trim_end_matches('/');
    let path = path.strip_suffix("/v1").unwrap_or(path);
    let path = path.strip_suffix("/openai").unwrap_or(path).trim_end_matches('/');
    Ok(format!("{scheme}://{authority}{path}"))
}

fn millis(value: &str) -> Result<Duration, String> {
    let range = 0..=86_400_000;
    let wait = value.parse().ok().filter(|wait| range.contains(wait));
    wait.map(Duration::from_millis)
        .ok_or_else(|| "use whole milliseconds from 0 to 86400000, such as 4000".to_owned())
}

fn retries(value: &str) -> Result<u32, String> {
    let retries = value.parse().ok().filter(|retries| *retries <= 100);
    retries.ok_or_else(|| "use a whole number from 0 to 100, such as 2".to_owned())
}

fn api_version(value: &str) -> Result<String, String> {
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

const REQUIRED: [&str; 4] =
    ["OPENAI_API_BASE", "OPENAI_API_KEY", "PTU_DEPLOYMENT", "STANDARD_DEPLOYMENT"];
const OPTIONAL: [&str; 2] = ["PTU_MAX_WAIT", "MAX_RETRIES"];

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

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
