//! Recorded arrivals, from files with the columns of the Azure LLM inference traces.

use std::{fmt, io, path::Path, time::Duration};

use spillover_emulator::timestamp;

use crate::files;

/// One recorded request: its arrival after the first one, and its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Recorded {
    pub(super) at: Duration,
    pub(super) prompt: u64,
    pub(super) output: u64,
}

/// Sorted by arrival; an error names the file and the line.
pub(super) fn load(file: &Path) -> Result<Vec<Recorded>, String> {
    let mut trace = Trace::default();
    let read = files::read_pieces(file, files::PATIENCE, |piece| trace.take(piece));
    let requests = read.and_then(|()| trace.end());
    requests.map_err(|problem| format!("{}{problem}: check --trace", file.display()))
}

/// The trace read so far: each line is checked before the next one is read, so that a file of
/// another format fails early, however long it is.
#[derive(Default)]
struct Trace {
    /// The number of columns, and the relevant ones; `None` before the first line.
    columns: Option<(usize, [usize; 3])>,
    requests: Vec<Recorded>,
    /// The beginning of an incomplete line.
    begun: Vec<u8>,
    lines: usize,
}

#[derive(Debug)]
enum Problem {
    File(io::Error),
    Line(usize, String),
}

impl Trace {
    fn take(&mut self, mut piece: &[u8]) -> Result<(), Problem> {
        while let Some(end) = memchr::memchr(b'\n', piece) {
            self.begin(&piece[..end])?;
            self.end_line()?;
            piece = &piece[end + 1..];
        }
        self.begin(piece)
    }

    fn begin(&mut self, part: &[u8]) -> Result<(), Problem> {
        if self.begun.len() + part.len() > MAX_LINE_BYTES {
            let problem = format!("the line is longer than {MAX_LINE_BYTES} bytes");
            return Err(Problem::Line(self.lines + 1, problem));
        }
        self.begun.extend_from_slice(part);
        Ok(())
    }

    fn end_line(&mut self) -> Result<(), Problem> {
        self.lines += 1;
        let begun = std::mem::take(&mut self.begun);
        let read = match str::from_utf8(&begun) {
            Ok(line) => self.line(line.trim()),
            Err(_) => Err("it is not text in UTF-8".to_owned()),
        };
        self.begun = begun;
        self.begun.clear();
        read.map_err(|problem| Problem::Line(self.lines, problem))
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        let Some((count, columns)) = self.columns else {
            self.columns = Some(columns(line)?);
            return Ok(());
        };
        if line.is_empty() {
            return Ok(());
        }
        if self.requests.len() == MAX_REQUESTS {
            return Err(format!("there are more than {MAX_REQUESTS} requests"));
        }
        let fields: Vec<_> = line.split(',').map(str::trim).collect();
        self.requests.push(request(&fields, columns, count)?);
        Ok(())
    }

    fn end(mut self) -> Result<Vec<Recorded>, Problem> {
        if !self.begun.is_empty() || self.lines == 0 {
            self.end_line()?;
        }
        let mut requests = self.requests;
        requests.sort_by_key(|request| request.at);
        let none = || Problem::Line(self.lines + 1, "there is no request".to_owned());
        let first = requests.first().ok_or_else(none)?.at;
        for request in &mut requests {
            request.at -= first;
        }
        Ok(requests)
    }
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::File(error)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => write!(f, ": {error}"),
            Self::Line(line, problem) => write!(f, ":{line}: {problem}"),
        }
    }
}

fn columns(head: &str) -> Result<(usize, [usize; 3]), String> {
    let names: Vec<_> = head.trim_start_matches('\u{feff}').split(',').map(str::trim).collect();
    let mut columns = [0; 3];
    for (column, wanted) in columns.iter_mut().zip(NAMES) {
        let found = names.iter().position(|name| *name == wanted);
        *column = found.ok_or_else(|| {
            let all = NAMES.join(",");
            format!("there is no column {wanted}: the first line must name {all}")
        })?;
    }
    Ok((names.len(), columns))
}

fn request(fields: &[&str], columns: [usize; 3], count: usize) -> Result<Recorded, String> {
    if fields.len() != count {
        return Err(format!("{} fields where {count} belong", fields.len()));
    }
    let [at, prompt, output] = columns.map(|column| fields[column]);
    let time = timestamp::read(at);
    let at = time.ok_or_else(|| format!("{at:?} is no time like 2023-11-16 18:17:03.9799600"))?;
    let tokens = |text: &str| match text.parse() {
        Ok(tokens) if tokens <= MAX_TOKENS => Ok(tokens),
        _ => Err(format!("{text:?} is no number of tokens up to {MAX_TOKENS}")),
    };
    Ok(Recorded { at, prompt: tokens(prompt)?, output: tokens(output)? })
}

const NAMES: [&str; 3] = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"];
/// The lines of the published traces have 50 bytes.
const MAX_LINE_BYTES: usize = 4 << 10;
/// The largest published trace, of a week, has half as many.
const MAX_REQUESTS: usize = 50_000_000;
const MAX_TOKENS: u64 = 2_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<Recorded>, Problem> {
        let mut trace = Trace::default();
        // In pieces, as they are read.
        text.as_bytes().chunks(7).try_for_each(|piece| trace.take(piece))?;
        trace.end()
    }

    #[test]
    fn arrivals_count_from_the_first_whatever_the_order_of_lines_and_columns() {
        let text = "GeneratedTokens,TIMESTAMP,x,ContextTokens\n\
                    8,2023-11-16 18:17:04.0319600,,3180\n\n10,2023-11-16 18:17:03.9799600,,4808";
        let read = parse(text).unwrap();
        assert_eq!(read[0], Recorded { at: Duration::ZERO, prompt: 4_808, output: 10 });
        assert_eq!(read[1].at, Duration::from_millis(52));
    }

    #[test]
    fn a_wrong_line_is_named() {
        let head = "TIMESTAMP,ContextTokens,GeneratedTokens\n";
        for (text, line) in [
            (String::new(), 1),
            (head.to_owned(), 2),
            (format!("{head}\n2023-11-16 18:17:03,1\n"), 3),
            (format!("{head}yesterday,1,1\n"), 2),
            (format!("{head}2023-11-16 18:17:03,1,2000001\n"), 2),
            (format!("{head}2023-11-16 18:17:03,1,1\n{}", " ".repeat(MAX_LINE_BYTES + 1)), 3),
        ] {
            let problem = parse(&text).unwrap_err();
            assert!(matches!(problem, Problem::Line(at, _) if at == line), "{text}: {problem}");
        }
    }
}
