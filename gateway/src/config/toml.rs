//! A table of the file, whose keys are known by being asked for.

use std::{ops::Range, time::Duration};

use toml::de::DeTable;

use super::{nearest::nearest, parse_context::Sheet, value::Value};

/// A table. Every key that nobody asked for is unknown, so the two cannot drift apart.
pub(super) struct Section<'a> {
    pub(super) sheet: &'a Sheet<'a>,
    pub(super) key: String,
    pub(super) span: Range<usize>,
    /// `None` where the file does not have it: everything is as by default.
    table: Option<&'a DeTable<'a>>,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    pub(super) const fn new(
        sheet: &'a Sheet<'a>,
        key: String,
        span: Range<usize>,
        table: Option<&'a DeTable<'a>>,
    ) -> Self {
        Self { sheet, key, span, table, known: Vec::new() }
    }

    pub(super) fn wrong(&self, text: impl Into<String>) {
        self.sheet.report(self.span.clone(), self.key.clone(), text);
    }

    pub(super) fn get(&mut self, key: &'static str) -> Option<Value<'a>> {
        self.known.push(key);
        let (_, value) = self.table?.iter().find(|(name, _)| name.get_ref() == key)?;
        Some(Value {
            sheet: self.sheet,
            key: self.path(key),
            span: value.span(),
            value: value.get_ref(),
        })
    }

    /// The value, or a report that it is missing with how to add it.
    pub(super) fn required(&mut self, key: &'static str, remedy: &str) -> Option<Value<'a>> {
        let value = self.get(key);
        if value.is_none() {
            let text = format!("is missing; {remedy}");
            self.sheet.report(self.span.clone(), self.path(key), text);
        }
        value
    }

    /// The section `key` of this one; one without anything where the file does not have it.
    pub(super) fn section(&mut self, key: &'static str) -> Self {
        self.optional(key)
            .unwrap_or_else(|| Self::new(self.sheet, self.path(key), self.span.clone(), None))
    }

    pub(super) fn optional(&mut self, key: &'static str) -> Option<Self> {
        self.get(key)?.section()
    }

    /// All of it: names that are the user's own, each with the place of the name.
    pub(super) fn entries(&self) -> Vec<(&'a str, Range<usize>, Value<'a>)> {
        let known = |name: &str| self.known.contains(&name);
        let mut entries: Vec<_> = self
            .table
            .into_iter()
            .flatten()
            .filter(|(name, _)| !known(name.get_ref()))
            .map(|(name, value)| {
                let key = self.path(name.get_ref());
                let (span, value) = (value.span(), value.get_ref());
                (&**name.get_ref(), name.span(), Value { sheet: self.sheet, key, span, value })
            })
            .collect();
        entries.sort_by_key(|(_, place, _)| place.start);
        entries
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.keys().any(|name| name.get_ref() == key))
    }

    pub(super) fn text(&mut self, key: &'static str) -> Option<String> {
        self.get(key)?.name().map(str::to_owned)
    }

    pub(super) fn flag(&mut self, key: &'static str, default: bool) -> bool {
        self.get(key).and_then(|value| value.flag()).unwrap_or(default)
    }

    /// A duration of at most a day.
    pub(super) fn duration(
        &mut self,
        key: &'static str,
        least: Duration,
        default: Duration,
    ) -> Duration {
        self.get(key).and_then(|value| value.duration(least, DAY)).unwrap_or(default)
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(self) {
        for (name, place, value) in self.entries() {
            let remedy = match nearest(name, self.known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("remove it, or use one of {}", self.known.join(", ")),
            };
            self.sheet.report(place, value.key, format!("is not a key here; {remedy}"));
        }
    }

    pub(super) fn path(&self, key: &str) -> String {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let key = if !key.is_empty() && key.chars().all(plain) {
            key.to_owned()
        } else {
            format!("{key:?}")
        };
        if self.key.is_empty() { key } else { format!("{}.{key}", self.key) }
    }
}

pub(super) const DAY: Duration = Duration::from_secs(86_400);
