//! Recorded arrivals, from files with the columns of the Azure LLM inference traces.

use std::{path::Path, time::Duration};

use spillover_emulator::timestamp;

use crate::files;

/// One recorded request: when it arrived after the first one, and its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Recorded {
    pub(super) at: Duration,
    pub(super) prompt: u64,
    pub(super) output: u64,
}

/// By arrival; an error names the file and the line.
pub(super) fn load(file: &Path) -> Result<Vec<Recorded>, String> {
    let text = files::read_text(file, LARGEST_TRACE, files::PATIENCE)
        .map_err(|error| format!("{}: {error}: check --trace", file.display()))?;
    parse(&text).map_err(|(line, problem)| format!("{}:{line}: {problem}", file.display()))
}

fn parse(text: &str) -> Result<Vec<Recorded>, (usize, String)> {
    let mut lines = text.lines().enumerate();
    let head = lines.next().map_or("", |(_, head)| head.trim_start_matches('\u{feff}'));
    let names: Vec<_> = head.split(',').map(str::trim).collect();
    let mut columns = [0; 3];
    for (column, wanted) in columns.iter_mut().zip(NAMES) {
        let found = names.iter().position(|name| *name == wanted);
        *column = found.ok_or_else(|| {
            let all = NAMES.join(",");
            (1, format!("no column is called {wanted}: the first line must name {all}"))
        })?;
    }
    let mut requests = Vec::new();
    for (index, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        let fields: Vec<_> = line.split(',').map(str::trim).collect();
        let read = request(&fields, columns, names.len());
        requests.push(read.map_err(|problem| (index + 1, problem))?);
    }
    requests.sort_by_key(|request| request.at);
    let first = requests.first().ok_or_else(|| (2, "there is no request".to_owned()))?.at;
    for request in &mut requests {
        request.at -= first;
    }
    Ok(requests)
}

fn request(fields: &[&str], columns: [usize; 3], count: usize) -> Result<Recorded, String> {
    if fields.len() != count {
        return Err(format!("{} fields where {count} belong", fields.len()));
    }
    let [at, prompt, output] = columns.map(|column| fields[column]);
    let time = timestamp::read(at);
    let at = time.ok_or_else(|| format!("{at:?} is no time like 2023-11-16 18:17:03.9799600"))?;
    let tokens = |text: &str| match text.parse() {
        Ok(tokens) if tokens <= MOST_TOKENS => Ok(tokens),
        _ => Err(format!("{text:?} is no number of tokens up to {MOST_TOKENS}")),
    };
    Ok(Recorded { at, prompt: tokens(prompt)?, output: tokens(output)? })
}

const NAMES: [&str; 3] = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"];
/// Bytes: the longest of the published traces, of a week, has a third.
const LARGEST_TRACE: u64 = 4 << 30;
const MOST_TOKENS: u64 = 2_000_000;

#[cfg(test)]
mod tests {
    use super::*;

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
        ] {
            assert_eq!(parse(&text).unwrap_err().0, line, "{text}");
        }
    }
}
