//! Reads traces of arrivals and token counts: TIMESTAMP,ContextTokens,GeneratedTokens.

use std::{
    fmt,
    io::{BufRead, Read},
    time::Duration,
};

/// One request of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// Since the first request.
    pub(crate) at: Duration,
    pub(crate) prompt: u64,
    pub(crate) completion: u64,
}

/// The requests of a trace.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    /// In the order of their arrival; at least one.
    pub(crate) arrivals: Vec<Arrival>,
    /// How long it lasts: to its last request, or as long as it was to be read.
    pub(crate) span: Duration,
}

/// What is wrong with a trace, and on which line, counted from 1.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TraceError {
    line: u64,
    problem: String,
}

/// Reads at most `limit` requests, of which none arrives `span` or more after the first.
///
/// The columns may come in any order and beside others. Timestamps are UTC or carry an offset. A
/// trace is read up to its limits only: what is wrong after them stays unseen.
pub(crate) fn read(
    reader: impl BufRead,
    limit: usize,
    span: Option<Duration>,
) -> Result<Trace, TraceError> {
    let mut lines = Lines { reader, number: 0 };
    let first = lines.next()?.ok_or_else(|| lines.wrong("the file is empty"))?;
    let columns = Columns::find(&first).map_err(|problem| lines.wrong(problem))?;
    let mut arrivals: Vec<Arrival> = Vec::new();
    let (mut epoch, mut latest, mut cut) = (None, i128::MIN, None);
    while arrivals.len() < limit {
        let Some(line) = lines.next()? else { break };
        if line.trim().is_empty() {
            continue;
        }
        let (time, prompt, completion) =
            columns.read(&line).map_err(|problem| lines.wrong(problem))?;
        if time < latest {
            return Err(lines.wrong("is earlier than the line before: sort the file by TIMESTAMP"));
        }
        latest = time;
        let nanos = time - *epoch.get_or_insert(time);
        let at = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        cut = span.filter(|span| at >= *span);
        if cut.is_some() {
            break;
        }
        arrivals.push(Arrival { at, prompt, completion });
    }
    let Some(last) = arrivals.last() else {
        return Err(lines.wrong("the file ends before its first request"));
    };
    Ok(Trace { span: cut.unwrap_or(last.at), arrivals })
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.problem)
    }
}

impl std::error::Error for TraceError {}

struct Lines<R> {
    reader: R,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    fn next(&mut self) -> Result<Option<String>, TraceError> {
        self.number += 1;
        let mut line = Vec::new();
        let most = LONGEST_LINE + 1;
        let read = (&mut self.reader).take(most as u64).read_until(b'\n', &mut line);
        match read {
            Err(error) => Err(self.wrong(format!("cannot be read: {error}"))),
            Ok(0) => Ok(None),
            Ok(length) if length == most => {
                Err(self.wrong(format!("is longer than {LONGEST_LINE} bytes: not a trace")))
            }
            Ok(_) => match String::from_utf8(line) {
                Ok(line) => Ok(Some(line)),
                Err(_) => Err(self.wrong("is not UTF-8: save the file as plain CSV")),
            },
        }
    }

    fn wrong(&self, problem: impl Into<String>) -> TraceError {
        TraceError { line: self.number, problem: problem.into() }
    }
}

/// Where the three columns are.
struct Columns([usize; 3]);

impl Columns {
    fn find(header: &str) -> Result<Self, String> {
        let header = header.trim_start_matches('\u{feff}');
        let names: Vec<_> = fields(header).collect();
        let mut found = [0; 3];
        for (place, name) in found.iter_mut().zip(NAMES) {
            *place = names.iter().position(|other| other.eq_ignore_ascii_case(name)).ok_or_else(
                || {
                    format!(
                        "has no column {name}: the first line has to name the columns {}",
                        NAMES.join(",")
                    )
                },
            )?;
        }
        Ok(Self(found))
    }

    fn read(&self, line: &str) -> Result<(i128, u64, u64), String> {
        let mut values = [""; 3];
        for (index, field) in fields(line).enumerate() {
            for (place, value) in self.0.iter().zip(&mut values) {
                if index == *place {
                    *value = field;
                }
            }
        }
        let time = timestamp(values[0]).ok_or_else(|| {
            format!("TIMESTAMP is {}: write it as 2023-11-16 18:17:03.97996", quoted(values[0]))
        })?;
        Ok((time, tokens(NAMES[1], values[1])?, tokens(NAMES[2], values[2])?))
    }
}

fn fields(line: &str) -> impl Iterator<Item = &str> {
    line.trim_end_matches(['\r', '\n']).split(',').map(|field| field.trim().trim_matches('"'))
}

fn tokens(name: &str, value: &str) -> Result<u64, String> {
    let tokens = value.parse().ok().filter(|tokens| *tokens <= MOST_TOKENS);
    tokens.ok_or_else(|| {
        format!("{name} is {}: write a whole number from 0 to {MOST_TOKENS}", quoted(value))
    })
}

/// A value from a file, made fit for a terminal.
fn quoted(value: &str) -> String {
    if value.is_empty() {
        return "missing".to_owned();
    }
    let mut short: String = value.chars().take(40).collect();
    if short.len() < value.len() {
        short.push('…');
    }
    format!("`{}`", short.escape_debug())
}

/// Nanoseconds since 1970 of `2023-11-16 18:17:03.9799600`, with `T` for the space and with or
/// without `Z` or an offset like `+01:00` (RFC 3339).
fn timestamp(text: &str) -> Option<i128> {
    let (date, rest) = (text.get(..10)?, text.get(10..)?);
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (clock, rest) = (rest.get(..8)?, rest.get(8..)?);
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
    let in_range = (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())),
        None => ("0", rest),
    };
    if !in_range || fraction.is_empty() {
        return None;
    }
    let nanos: i64 = format!("{:0<9.9}", fraction).parse().ok()?;
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    Some(i128::from(seconds - offset(zone)?) * 1_000_000_000 + i128::from(nanos))
}

fn offset(zone: &str) -> Option<i64> {
    if matches!(zone, "" | "Z" | "z") {
        return Some(0);
    }
    let [hours, minutes] = numbers(zone.get(1..)?, ':', [2, 2])?;
    let seconds = hours * 3_600 + minutes * 60;
    match zone.as_bytes()[0] {
        b'+' if hours < 24 && minutes < 60 => Some(seconds),
        b'-' if hours < 24 && minutes < 60 => Some(-seconds),
        _ => None,
    }
}

fn numbers<const N: usize>(text: &str, separator: char, digits: [usize; N]) -> Option<[i64; N]> {
    let mut parts = text.split(separator);
    let mut numbers = [0; N];
    for (number, digits) in numbers.iter_mut().zip(digits) {
        let part = parts.next()?;
        if part.len() != digits || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

const NAMES: [&str; 3] = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"];
/// More than any context holds; the emulator believes no more either.
const MOST_TOKENS: u64 = 10_000_000;
const LONGEST_LINE: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADER: &str = "TIMESTAMP,ContextTokens,GeneratedTokens\n";

    fn all(text: &[u8]) -> Result<Trace, TraceError> {
        read(text, usize::MAX, None)
    }

    fn problem(lines: &str) -> String {
        all(format!("{HEADER}{lines}").as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn arrivals_are_counted_from_the_first_one() {
        let text = format!(
            "{HEADER}2023-11-16 18:17:03.9799600,4808,10\r\n2023-11-16 18:17:04.0319600,3180,8\n\n"
        );
        let trace = all(text.as_bytes()).unwrap();
        let second = Arrival { at: Duration::from_millis(52), prompt: 3_180, completion: 8 };
        assert_eq!(
            trace.arrivals[0],
            Arrival { at: Duration::ZERO, prompt: 4_808, completion: 10 }
        );
        assert_eq!((trace.arrivals[1], trace.span), (second, second.at));
    }

    #[test]
    fn columns_are_found_by_name_and_timestamps_in_every_common_form() {
        let text = "\u{feff}id,generatedtokens,CONTEXTTOKENS,\"TIMESTAMP\"\n\
            a,1,2,2024-02-29T23:59:59Z\nb,1,2,2024-03-01 01:00:00.5+01:00\n\
            c,1,2,2024-02-29T19:00:01.123456789123-05:00\n";
        let trace = all(text.as_bytes()).unwrap();
        let at: Vec<_> = trace.arrivals.iter().map(|arrival| arrival.at.as_nanos()).collect();
        assert_eq!(at, [0, 1_500_000_000, 2_123_456_789]);
        assert_eq!((trace.arrivals[0].prompt, trace.arrivals[0].completion), (2, 1));
    }

    #[test]
    fn both_limits_end_the_trace_before_what_is_wrong_after_them() {
        let text = format!(
            "{HEADER}2023-01-01 00:00:00,1,1\n2023-01-01 00:00:59,1,1\n2023-01-01 00:01:00,1,1\n?\n"
        );
        let minute = Duration::from_secs(60);
        let trace = read(text.as_bytes(), usize::MAX, Some(minute)).unwrap();
        assert_eq!((trace.arrivals.len(), trace.span), (2, minute));
        let trace = read(text.as_bytes(), 3, Some(minute * 2)).unwrap();
        assert_eq!((trace.arrivals.len(), trace.span), (3, minute));
    }

    #[test]
    fn a_wrong_line_is_named_with_what_is_wrong_in_it() {
        const FINE: &str = "2023-11-16 18:17:03.97,1,1\n";
        for (line, wrong) in [
            ("2023-02-30 00:00:00,1,1", "line 3: TIMESTAMP is `2023-02-30 00:00:00`"),
            ("2023-11-16 18:17:03.,1,1", "line 3: TIMESTAMP"),
            ("2023-11-16 18:17:04+1:00,1,1", "line 3: TIMESTAMP"),
            ("2023-11-16 18:17:04,many,1", "line 3: ContextTokens is `many`"),
            ("2023-11-16 18:17:04,1,-1", "line 3: GeneratedTokens is `-1`"),
            ("2023-11-16 18:17:04,1,10000001", "line 3: GeneratedTokens"),
            ("2023-11-16 18:17:04,1", "line 3: GeneratedTokens is missing"),
            ("2023-11-16 18:17:03,1,1", "line 3: is earlier than the line before"),
        ] {
            let problem = problem(&format!("{FINE}{line}\n"));
            assert!(problem.starts_with(wrong), "{line}: {problem}");
        }
        assert!(problem("").starts_with("line 2: the file ends before its first request"));
        assert!(all(b"").unwrap_err().to_string().starts_with("line 1: the file is empty"));
        let column = all(b"TIMESTAMP,tokens\n").unwrap_err().to_string();
        assert!(column.starts_with("line 1: has no column ContextTokens"), "{column}");
        let long = vec![b'x'; LONGEST_LINE + 1];
        assert!(all(&long).unwrap_err().to_string().contains("is longer than"));
        assert!(all(b"\xff\n").unwrap_err().to_string().contains("is not UTF-8"));
    }

    proptest! {
        #[test]
        fn no_file_panics(line in "[-0-9:.TZ+ ,é\u{0}x]{0,60}", bytes in any::<Vec<u8>>()) {
            let _ = all(format!("{HEADER}{line}").as_bytes());
            let _ = all(&bytes);
        }

        #[test]
        fn days_follow_each_other(days in 0i64..3_000_000) {
            let (mut year, mut month, mut day) = (1, 1, 1);
            // Steps of whole years keep the walk short.
            let start = days_since_1970(year, month, day);
            let mut left = days;
            while left > 0 {
                let length = if days_in(year, 2) == 29 { 366 } else { 365 };
                if month == 1 && day == 1 && left >= length {
                    year += 1;
                    left -= length;
                } else {
                    left -= 1;
                    day += 1;
                    if day > days_in(year, month) {
                        (month, day) = (month % 12 + 1, 1);
                        year += i64::from(month == 1);
                    }
                }
            }
            prop_assert_eq!(days_since_1970(year, month, day), start + days);
        }
    }
}
