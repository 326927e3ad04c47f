//! Locations of problems in a file, without quoting values, which may be keys.

use std::{ops::Range, path::Path};

/// A file, for messages about it.
pub(crate) struct Site<'a> {
    file: &'a Path,
    text: &'a str,
}

impl<'a> Site<'a> {
    pub(crate) fn new(file: &'a Path, text: &'a str) -> Self {
        Self { file, text }
    }

    /// `FILE:LINE: key: problem`, for a problem that begins at a byte offset.
    pub(crate) fn at(&self, span: Option<Range<usize>>, problem: &str) -> String {
        let file = self.file.display();
        let Some(before) = span.and_then(|span| self.text.get(..span.start)) else {
            return format!("{file}: {}", without_values(problem));
        };
        let line = before.matches('\n').count() + 1;
        // The last key before the offset on its line is the one that the problem is about.
        let begun = before.rsplit('\n').next().unwrap_or(before).trim_start();
        let key = match begun.rsplit_once('=') {
            Some((left, _)) => left.rsplit([' ', ',', '{']).find(|word| !word.is_empty()),
            None => None,
        };
        let key = key.map(|key| format!("{key}: ")).unwrap_or_default();
        format!("{file}:{line}: {key}{}", without_values(problem))
    }

    /// The same, if a parser only gives the line.
    pub(crate) fn on_line(&self, line: usize, problem: &str) -> String {
        format!("{}:{line}: {}", self.file.display(), without_values(problem))
    }
}

/// serde quotes unexpected values; a string may be a secret.
pub(crate) fn without_values(problem: &str) -> String {
    let quoting = ["invalid type: string \"", "invalid value: string \""];
    for start in quoting {
        if let Some(at) = problem.find(start)
            && let Some(end) = problem.rfind("\", expected")
            && end + 1 > at + start.len() - 1
        {
            let kept = &problem[..at + start.len() - 2];
            return format!("{kept}{}", &problem[end + 1..]);
        }
    }
    problem.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_line_and_the_key_before_it() {
        let text = "seed = 1\npace = { first_token = 7 }\n";
        let site = Site::new(Path::new("e.toml"), text);
        let at = text.find('7').unwrap();
        assert_eq!(site.at(Some(at..at + 1), "is odd"), "e.toml:2: first_token: is odd");
        assert_eq!(site.at(Some(0..4), "is odd"), "e.toml:1: is odd");
        assert_eq!(site.at(None, "is odd"), "e.toml: is odd");
        assert_eq!(site.at(Some(900..901), "is odd"), "e.toml: is odd");
    }

    #[test]
    fn a_value_of_the_file_is_never_quoted() {
        let said =
            without_values("invalid type: string \"s3c\", expected x\", expected a sequence");
        assert_eq!(said, "invalid type: string, expected a sequence");
        assert_eq!(without_values("unknown field `kee`"), "unknown field `kee`");
        for odd in ["invalid type: string \"", "invalid type: string \", expected"] {
            let _ = without_values(odd);
        }
    }
}
