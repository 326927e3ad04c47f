//! The problems of a configuration, each with its location and its remedy.

use std::{
    error::Error,
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

/// All problems of a configuration, in file order; never empty.
#[derive(Clone, Debug)]
pub struct Problems(Vec<Problem>);

/// One problem. No part of it contains a secret.
#[derive(Clone, Debug)]
pub struct Problem {
    pub file: PathBuf,
    /// Counts from 1.
    pub line: usize,
    /// Counts from 1, in characters.
    pub column: usize,
    /// `models."gpt-4o".ptu[0].key`; empty if it concerns the whole file.
    pub key: String,
    /// What is wrong and, after a semicolon, the remedy.
    pub text: String,
}

impl Problems {
    pub(super) fn new(problems: Vec<Problem>) -> Self {
        Self(in_order(problems))
    }

    #[cfg(test)]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Problem> {
        self.0.iter()
    }
}

/// Sorts problems in file order.
pub(super) fn in_order(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort_by_key(|problem| (problem.line, problem.column));
    problems
}

impl Problem {
    /// A problem at `span` of `source`.
    pub(super) fn new(
        file: &Path,
        source: &str,
        span: Range<usize>,
        key: String,
        text: String,
    ) -> Self {
        let end = (0..=span.start.min(source.len()))
            .rev()
            .find(|&index| source.is_char_boundary(index))
            .unwrap_or_default();
        let before = &source[..end];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            file: file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            key,
            text,
        }
    }

    /// Its file, line and column.
    pub(crate) fn place(&self) -> String {
        format!("{}:{}:{}", self.file.display(), self.line, self.column)
    }

    /// A problem with the file as a whole.
    pub(super) fn whole(file: &Path, text: String) -> Self {
        Self::new(file, "", 0..0, String::new(), text)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, text, .. } = self;
        write!(f, "{}: ", self.place())?;
        if !key.is_empty() {
            write!(f, "{key}: ")?;
        }
        f.write_str(text)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl Error for Problems {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_counted_in_lines_and_characters() {
        let at = |start| {
            let problem =
                Problem::new(Path::new("f"), "a\nä = 1\n", start..start, String::new(), "x".into());
            (problem.line, problem.column)
        };
        assert_eq!([at(0), at(2), at(4), at(99)], [(1, 1), (2, 1), (2, 2), (3, 1)]);
        assert_eq!(at(3), (2, 1), "within a character is at it");
    }
}
