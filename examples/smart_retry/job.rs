//! Reads the job from the command line and the environment.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use http::{HeaderValue, Uri};

use crate::args::{self, Args};

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

impl Job {
    /// The job, or the problem and its remedy. A trace takes precedence over an endpoint.
    pub(crate) fn choose(
        args: Args,
        env: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, String> {
        let env = Env(env);
        if let Some(trace) = args.trace.clone() {
            return replay(&args, trace, &env).map(Self::Replay);
        }
        let mut values = Vec::new();
        for name in REQUIRED {
            values.push(env.get(name)?);
        }
        if let [Some(base), Some(key), Some(ptu), Some(standard)] = values.as_slice() {
            return live(args, [base, key, ptu, standard], &env).map(|l| Self::Live(l.into()));
        }
        let mut in_part = values.iter().any(Option::is_some);
        for name in OPTIONAL {
            in_part |= env.get(name)?.is_some();
        }
        let missing = REQUIRED.iter().zip(&values).filter(|(_, value)| value.is_none());
        let missing = missing.map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        if in_part {
            return Err(format!(
                "the environment names an endpoint only in part: set {missing} as well, or none \
                 of {}, {} for a demonstration without an endpoint",
                REQUIRED.join(", "),
                OPTIONAL.join(", "),
            ));
        }
        demonstration(&args, &missing)
    }
}

/// Refuses options that the demonstration would ignore.
fn demonstration(args: &Args, missing: &str) -> Result<Job, String> {
    let remedy = if !args.prompts.is_empty() {
        "PROMPT needs an endpoint to be sent to: set"
    } else if args.api_version.is_some() {
        "--api-version is for a real endpoint: set"
    } else if args.max_wait.is_some() {
        "--max-wait is not for the demonstration, which has its own: name a --trace, or set"
    } else {
        return Ok(Job::Burst);
    };
    Err(format!("{remedy} {missing}"))
}

fn live<F: Fn(&str) -> Option<OsString>>(
    args: Args,
    [base, key, ptu, standard]: [&String; 4],
    env: &Env<F>,
) -> Result<Live, String> {
    let mut key = HeaderValue::from_str(key.trim()).map_err(|_| {
        "OPENAI_API_KEY has characters that a header cannot carry: copy the key again from the \
         Azure portal, Keys and Endpoint"
    })?;
    key.set_sensitive(true);
    if ptu == standard {
        return Err(format!(
            "PTU_DEPLOYMENT and STANDARD_DEPLOYMENT are both `{}`: name two deployments, or there \
             is nothing to spill to",
            ptu.escape_debug(),
        ));
    }
    let api_version = match args.api_version {
        Some(version) => Some(version),
        None => env.parsed("OPENAI_API_VERSION", args::api_version)?,
    };
    Ok(Live {
        endpoint: endpoint(base)?,
        key,
        ptu: ptu.clone(),
        standard: standard.clone(),
        api_version: api_version.unwrap_or_else(|| "2024-02-01".to_owned()),
        max_wait: max_wait(args.max_wait, env)?,
        max_retries: env.parsed("MAX_RETRIES", args::retries)?.unwrap_or(0),
        prompts: args.prompts,
    })
}

fn replay<F: Fn(&str) -> Option<OsString>>(
    args: &Args,
    trace: PathBuf,
    env: &Env<F>,
) -> Result<Replay, String> {
    if args.standard_tpm.is_some() && args.speedup != 1.0 {
        return Err(
            "--standard-tpm needs --speedup 1: the emulator's quota windows last a minute \
                    of real time, whatever the speed"
                .to_owned(),
        );
    }
    if args.bucket.div_f64(args.speedup) < Duration::from_millis(1) {
        return Err(format!(
            "--bucket lasts less than a millisecond at --speedup {}: name a longer one, or a \
             lower speed",
            args.speedup
        ));
    }
    Ok(Replay {
        trace,
        speedup: args.speedup,
        limit: args.limit.unwrap_or(usize::MAX),
        span: args.minutes,
        ptu_fraction: args.ptu_fraction,
        bucket: args.bucket,
        max_wait: max_wait(args.max_wait, env)?,
        standard_tpm: args.standard_tpm,
    })
}

fn max_wait<F: Fn(&str) -> Option<OsString>>(
    given: Option<Duration>,
    env: &Env<F>,
) -> Result<Duration, String> {
    let wait = match given {
        Some(wait) => Some(wait),
        None => env.parsed("PTU_MAX_WAIT", args::millis)?,
    };
    Ok(wait.unwrap_or(Duration::from_millis(4_000)))
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
    let path =
        path.strip_suffix("/openai/v1").or_else(|| path.strip_suffix("/openai")).unwrap_or(path);
    Ok(format!("{scheme}://{authority}{}", path.trim_end_matches('/')))
}

/// The environment; an empty variable counts as one that is not set.
struct Env<F>(F);

impl<F: Fn(&str) -> Option<OsString>> Env<F> {
    fn get(&self, name: &str) -> Result<Option<String>, String> {
        match self.0(name).map(OsString::into_string) {
            Some(Ok(value)) => Ok(Some(value).filter(|value| !value.trim().is_empty())),
            Some(Err(_)) => Err(format!("{name} is not UTF-8: set it to plain text")),
            None => Ok(None),
        }
    }

    fn parsed<T>(
        &self,
        name: &str,
        parse: fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        let Some(value) = self.get(name)? else { return Ok(None) };
        let wrong = |problem| format!("{name} is `{}`: {problem}", value.escape_debug());
        parse(value.trim()).map(Some).map_err(wrong)
    }
}

const REQUIRED: [&str; 4] =
    ["OPENAI_API_BASE", "OPENAI_API_KEY", "PTU_DEPLOYMENT", "STANDARD_DEPLOYMENT"];
const OPTIONAL: [&str; 2] = ["PTU_MAX_WAIT", "MAX_RETRIES"];

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    const ENDPOINT: [(&str, &str); 4] = [
        ("OPENAI_API_BASE", "https://contoso.openai.azure.com/openai/v1/"),
        ("OPENAI_API_KEY", "0123456789abcdef"),
        ("PTU_DEPLOYMENT", "gpt-4o-ptu"),
        ("STANDARD_DEPLOYMENT", "gpt-4o"),
    ];

    fn choose(args: &[&str], env: &[(&str, &str)]) -> Result<Job, String> {
        let args = [&["smart_retry"], args].concat();
        let args = Args::try_parse_from(args).map_err(|error| error.to_string())?;
        let value = |name: &str| env.iter().find(|(other, _)| *other == name);
        Job::choose(args, |name| value(name).map(|(_, value)| (*value).into()))
    }

    fn with(name: &'static str, value: &'static str) -> Vec<(&'static str, &'static str)> {
        let others = ENDPOINT.into_iter().filter(|(other, _)| *other != name);
        others.chain([(name, value)]).collect()
    }

    #[test]
    fn nothing_at_all_asks_for_the_demonstration_and_a_full_environment_for_the_endpoint() {
        assert!(matches!(choose(&[], &[]), Ok(Job::Burst)));
        let Ok(Job::Live(live)) = choose(&["Why?"], &ENDPOINT) else { panic!("not live") };
        assert_eq!(live.endpoint, "https://contoso.openai.azure.com");
        assert_eq!((live.max_wait.as_millis(), live.max_retries), (4_000, 0));
        assert!(!format!("{live:?}").contains("0123456789abcdef"), "{live:?}");
        let trace = choose(&["--trace", "x.csv", "--minutes", "10"], &ENDPOINT);
        assert!(matches!(trace, Ok(Job::Replay(replay)) if replay.max_wait.as_secs() == 4));
    }

    #[test]
    fn an_environment_set_in_part_is_told_what_it_lacks_and_no_value() {
        let problem = choose(&[], &ENDPOINT[..2]).unwrap_err();
        assert!(problem.contains("set PTU_DEPLOYMENT, STANDARD_DEPLOYMENT as well"), "{problem}");
        assert!(!problem.contains("0123456789abcdef"), "{problem}");
        let problem = choose(&[], &with("OPENAI_API_KEY", " ")).unwrap_err();
        assert!(problem.contains("set OPENAI_API_KEY as well"), "{problem}");
        let problem = choose(&[], &[("PTU_MAX_WAIT", "100")]).unwrap_err();
        assert!(problem.contains("set OPENAI_API_BASE, OPENAI_API_KEY"), "{problem}");
    }

    #[test]
    fn wrong_variables_are_named_with_a_remedy() {
        for (name, value, remedy) in [
            ("PTU_MAX_WAIT", "4s", "whole milliseconds"),
            ("PTU_MAX_WAIT", "-1", "whole milliseconds"),
            ("MAX_RETRIES", "4294967296", "whole number from 0 to 100"),
            ("OPENAI_API_VERSION", "2024&x", "such as 2024-02-01"),
            ("OPENAI_API_BASE", "contoso.openai.azure.com", "https://contoso"),
            ("OPENAI_API_BASE", "ftp://contoso", "https://contoso"),
            ("OPENAI_API_BASE", "https://key@contoso.example", "https://contoso"),
            ("OPENAI_API_KEY", "two\nlines", "copy the key again"),
            ("STANDARD_DEPLOYMENT", "gpt-4o-ptu", "two deployments"),
        ] {
            let problem = choose(&[], &with(name, value)).unwrap_err();
            assert!(problem.contains(name) && problem.contains(remedy), "{name}: {problem}");
        }
    }

    #[test]
    fn wrong_arguments_are_named_with_a_remedy() {
        for (args, name, remedy) in [
            (&["--trace", "x", "--speedup", "0"][..], "--speedup", "from 0.1 to 1000"),
            (&["--trace", "x", "--speedup", "nan"], "--speedup", "from 0.1 to 1000"),
            (&["--trace", "x", "--limit", "-3"], "--limit", "from 1 on"),
            (&["--trace", "x", "--ptu-fraction", "inf"], "--ptu-fraction", "from 0.001 to 100"),
            (&["--trace", "x", "--bucket", "0.1", "--speedup", "1000"], "--bucket", "longer"),
            (&["--trace", "x", "--standard-tpm", "9"], "--standard-tpm", "--speedup 1"),
            (&["--limit", "3"], "--limit", "--trace"),
            (&["Why?"], "PROMPT", "set OPENAI_API_BASE"),
            (&["--max-wait", "9"], "--max-wait", "name a --trace"),
        ] {
            let problem = choose(args, &[]).unwrap_err();
            assert!(problem.contains(name) && problem.contains(remedy), "{args:?}: {problem}");
        }
    }
}
