//! The context of reading one file: its text, its environment, and the problems found so far.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io,
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};

use sha2::{Digest, Sha256};

use super::problem::Problem;
use crate::files;

/// The contents of all files that a configuration was read from; `None` for an unreadable one.
pub(super) type Contents = BTreeMap<PathBuf, Option<[u8; 32]>>;

/// Looks up `env:NAME`.
pub(super) type Environment<'a> = dyn Fn(&str) -> Option<String> + 'a;

pub(super) struct ParseContext<'a> {
    file: &'a Path,
    text: &'a str,
    environment: &'a Environment<'a>,
    /// How long to wait for files that are pipes.
    patience: Duration,
    found: RefCell<Findings>,
}

/// The problems found in a file and in those it refers to.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) problems: Vec<Problem>,
    /// Allowed settings that have no effect.
    pub(super) warnings: Vec<Problem>,
    pub(super) contents: Contents,
}

impl<'a> ParseContext<'a> {
    pub(super) fn new(
        file: &'a Path,
        text: &'a str,
        environment: &'a Environment<'a>,
        patience: Duration,
    ) -> Self {
        Self { file, text, environment, patience, found: RefCell::default() }
    }

    pub(super) fn report(
        &self,
        span: Range<usize>,
        key: impl Into<String>,
        text: impl Into<String>,
    ) {
        let problem = Problem::new(self.file, self.text, span, key.into(), text.into());
        self.found.borrow_mut().problems.push(problem);
    }

    pub(super) fn warn(&self, span: Range<usize>, key: impl Into<String>, text: impl Into<String>) {
        let warning = Problem::new(self.file, self.text, span, key.into(), text.into());
        self.found.borrow_mut().warnings.push(warning);
    }

    pub(super) fn is_wrong(&self) -> bool {
        !self.found.borrow().problems.is_empty()
    }

    pub(super) fn variable(&self, name: &str) -> Option<String> {
        (self.environment)(name)
    }

    /// Reads a file named in this one; its path is relative to this one.
    pub(super) fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        let path = self.file.parent().unwrap_or_else(|| Path::new("")).join(path);
        let bytes = files::read(&path, files::MAX_FILE_BYTES, self.patience);
        note(&mut self.found.borrow_mut().contents, path, bytes.as_deref().ok());
        bytes
    }

    pub(super) fn finish(self) -> Findings {
        self.found.into_inner()
    }
}

pub(super) fn note(contents: &mut Contents, path: PathBuf, bytes: Option<&[u8]>) {
    contents.insert(path, bytes.map(|bytes| Sha256::digest(bytes).into()));
}

/// An operating system error without its number.
pub(super) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(letters).collect()
}
