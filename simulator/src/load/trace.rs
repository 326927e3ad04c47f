//! Recorded requests, from files with the columns of the Azure LLM inference traces.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use spillover_emulator::timestamp;

use super::{Ask, MAX_TOKENS_PER_REQUEST, Shape, Traffic};
use tower_spillover::ConfigError;

/// Recorded requests: arrival times, and the tokens of prompts and answers.
#[derive(Clone)]
pub struct Trace {
    requests: Arc<[Recorded]>,
}

/// One request of a trace.
#[derive(Clone, Copy, Debug)]
struct Recorded {
    /// Time since the first request.
    at: Duration,
    prompt: u64,
    output: u64,
    /// The cached part of the prompt, if the trace has it.
    cached: Option<u64>,
}

/// An unreadable line of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceError {
    line: usize,
    problem: String,
}

impl Trace {
    /// Parses comma-separated values with the columns `TIMESTAMP`, `ContextTokens` and
    /// `GeneratedTokens`, as in the AzurePublicDataset, and optionally `CachedTokens`: the part of
    /// the prompt that costs a PTU nothing. Columns may be in any order, and others are ignored.
    /// Lines need not be sorted by time; empty lines are skipped.
    ///
    /// # Errors
    ///
    /// The number of the first invalid line, and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, TraceError> {
        let mut lines = text.lines().enumerate();
        let columns = match lines.next() {
            Some((_, head)) => Columns::read(head.trim_start_matches('\u{feff}'))
                .map_err(|problem| TraceError { line: 1, problem })?,
            None => return Err(TraceError { line: 1, problem: "the file is empty".to_owned() }),
        };
        let requests = lines
            .filter(|(_, line)| !line.trim().is_empty())
            .map(|(index, line)| {
                columns.request(line).map_err(|problem| TraceError { line: index + 1, problem })
            })
            .collect::<Result<Vec<_>, _>>()?;
        if requests.is_empty() {
            let problem = "there is no request after the column names".to_owned();
            return Err(TraceError { line: 2, problem });
        }
        Ok(Self::of(requests))
    }

    /// Makes a trace from arrival, prompt tokens and generated tokens (at most 10 million each).
    pub fn new(requests: impl IntoIterator<Item = (Duration, u64, u64)>) -> Self {
        let recorded = |(at, prompt, output)| Recorded { at, prompt, output, cached: None };
        Self::of(requests.into_iter().map(recorded).collect())
    }

    fn of(mut requests: Vec<Recorded>) -> Self {
        requests.sort_by_key(|request| request.at);
        let first = requests.first().map_or(Duration::ZERO, |request| request.at);
        for Recorded { at, prompt, output, cached } in &mut requests {
            *at -= first;
            *prompt = (*prompt).min(MAX_TOKENS_PER_REQUEST);
            *output = (*output).min(MAX_TOKENS_PER_REQUEST);
            *cached = cached.map(|cached| cached.min(*prompt));
        }
        Self { requests: requests.into() }
    }

    /// Whether the trace has the cached part of each prompt.
    pub fn tells_cached(&self) -> bool {
        self.requests.iter().any(|request| request.cached.is_some())
    }

    /// The number of requests.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether the trace has no requests.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// The time from the first arrival to the last.
    pub fn length(&self) -> Duration {
        self.requests.last().map_or(Duration::ZERO, |request| request.at)
    }

    pub(super) fn draw(
        &self,
        seed: u64,
        warm_up: Duration,
        length: Option<Duration>,
        shape: &Shape,
    ) -> Result<Traffic, ConfigError> {
        let end = length.map_or(Duration::MAX, |length| length.saturating_add(warm_up));
        let whole = |at: Duration| Duration::from_millis(at.as_micros().div_ceil(1_000) as u64);
        let asks: Vec<_> = (self.requests.iter().enumerate())
            .map(|(index, &Recorded { at, prompt, output, cached })| {
                shape.ask(seed, index, whole(at), (prompt, output, cached))
            })
            .take_while(|ask| ask.at < end)
            .collect();
        // The trace ends just after its last request, but lasts at least a second: a mean over less
        // than a second would be meaningless.
        let last = asks.last().map_or(Duration::ZERO, |ask| ask.at) + Duration::from_millis(1);
        let to = end.min(last).max(Duration::from_secs(1));
        if warm_up >= to {
            let problem = format!("is not over before the trace ends after {} s", to.as_secs());
            return Err(ConfigError::new("warm_up", problem));
        }
        let mean_load = asks.iter().map(Ask::cost).sum::<f64>() / to.as_secs_f64();
        Ok(Traffic { asks, from: warm_up, to, mean_load, bursts: Vec::new() })
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace").field("requests", &self.len()).finish_non_exhaustive()
    }
}

impl TraceError {
    /// The line's number; the first is 1.
    pub fn line(&self) -> usize {
        self.line
    }
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.problem)
    }
}

impl Error for TraceError {}

/// The positions of the columns, and their number.
struct Columns {
    at: [usize; 3],
    cached: Option<usize>,
    count: usize,
}

impl Columns {
    fn read(head: &str) -> Result<Self, String> {
        let names: Vec<_> = head.split(',').map(str::trim).collect();
        let mut at = [0; 3];
        for (name, at) in NAMES.iter().zip(&mut at) {
            *at = names.iter().position(|column| column == name).ok_or_else(|| {
                format!("no column is called {name}; the first line must name {}", NAMES.join(","))
            })?;
        }
        let cached = names.iter().position(|column| *column == CACHED);
        Ok(Self { at, cached, count: names.len() })
    }

    fn request(&self, line: &str) -> Result<Recorded, String> {
        let fields: Vec<_> = line.split(',').map(str::trim).collect();
        if fields.len() != self.count {
            return Err(format!("{} fields where {} belong", fields.len(), self.count));
        }
        let [at, prompt, output] = self.at.map(|index| fields[index]);
        let at = timestamp::read(at).ok_or_else(|| {
            format!("{at:?} in {} is not a time like 2023-11-16 18:17:03.9799600", NAMES[0])
        })?;
        let cached = self.cached.map(|index| tokens(fields[index], CACHED)).transpose()?;
        let (prompt, output) = (tokens(prompt, NAMES[1])?, tokens(output, NAMES[2])?);
        Ok(Recorded { at, prompt, output, cached })
    }
}

fn tokens(text: &str, column: &str) -> Result<u64, String> {
    let problem = match text.parse() {
        Ok(tokens) if tokens <= MAX_TOKENS_PER_REQUEST => return Ok(tokens),
        Ok(_) => "more than 10,000,000 tokens",
        Err(_) => "not a whole number of tokens",
    };
    Err(format!("{text:?} in {column} is {problem}"))
}

const NAMES: [&str; 3] = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"];
const CACHED: &str = "CachedTokens";

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n";

    #[test]
    fn a_trace_starts_with_its_first_request_whatever_the_order_of_lines() {
        let trace = Trace::parse(&format!(
            "{HEAD}2023-11-16 18:17:04.0319600,3180,8\r\n\r\n2023-11-16 18:17:03.9799600,4808,10"
        ));
        let traffic = trace.unwrap().draw(1, Duration::ZERO, None, &Shape::default()).unwrap();
        let seen: Vec<_> = traffic.asks.iter().map(|a| (a.at.as_millis(), a.prompt)).collect();
        assert_eq!(seen, [(0, 4_808), (52, 3_180)]);
        assert!(traffic.asks.iter().all(|a| (a.output..=2 * a.output).contains(&a.max_tokens)));
    }

    #[test]
    fn columns_are_found_by_name() {
        let text = "Model,GeneratedTokens,TIMESTAMP,ContextTokens\ngpt,7,2024-05-10 00:00:00,9";
        let traffic =
            Trace::parse(text).unwrap().draw(1, Duration::ZERO, None, &Shape::default()).unwrap();
        assert_eq!((traffic.asks[0].prompt, traffic.asks[0].output), (9, 7));
    }

    #[test]
    fn a_column_of_cached_tokens_makes_prompts_cheaper() {
        let text = "TIMESTAMP,CachedTokens,ContextTokens,GeneratedTokens\n\
                    2024-05-10 00:00:00,600,900,7\n2024-05-10 00:00:01,50,40,7";
        let trace = Trace::parse(text).unwrap();
        assert!(trace.tells_cached());
        let traffic = trace.draw(1, Duration::ZERO, None, &Shape::default()).unwrap();
        let seen: Vec<_> = traffic.asks.iter().map(|ask| (ask.cached, ask.cost())).collect();
        assert_eq!(seen, [(600, 321.0), (40, 21.0)], "no more than the prompt");
        assert!(!Trace::parse(&text.replace("Cached", "Other")).unwrap().tells_cached());
    }

    #[test]
    fn a_wrong_line_is_named_with_what_is_wrong_with_it() {
        let good = "2023-11-16 18:17:03.9799600,4808,10\n";
        for (wrong, problem) in [
            ("2023-11-16 18:17:03,4808\n", "2 fields where 3 belong"),
            ("2023-11-16 18:17:03,4808,1,2\n", "4 fields where 3 belong"),
            ("yesterday,4808,10\n", "\"yesterday\" in TIMESTAMP is not a time"),
            ("2023-11-16 18:17:03,-1,10\n", "\"-1\" in ContextTokens is not a whole number"),
            ("2023-11-16 18:17:03,1,1.5\n", "\"1.5\" in GeneratedTokens is not a whole number"),
            ("2023-11-16 18:17:03,1,10000001\n", "more than 10,000,000 tokens"),
        ] {
            let error = Trace::parse(&format!("{HEAD}{good}\n{wrong}{good}")).unwrap_err();
            assert_eq!(error.line(), 4, "{wrong}");
            assert!(
                error.to_string().starts_with(&format!("line 4: {problem}")) || {
                    error.to_string().contains(problem)
                }
            );
        }
    }

    #[test]
    fn a_file_without_requests_or_columns_is_refused() {
        for (text, line) in [("", 1), ("a,b,c\n1,2,3", 1), (HEAD, 2)] {
            assert_eq!(Trace::parse(text).unwrap_err().line(), line, "{text:?}");
        }
    }
}
