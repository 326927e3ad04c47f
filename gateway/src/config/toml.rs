//! Reads TOML tables and values, and reports unknown keys.

use std::{ops::Range, time::Duration};

use toml::de::{DeTable, DeValue};

use super::{nearest::nearest, parse_context::ParseContext, quantity};
use crate::duration;

/// A table. Every key that no reader asks for counts as unknown, so the two cannot drift apart.
pub(super) struct Section<'a> {
    pub(super) context: &'a ParseContext<'a>,
    pub(super) key: String,
    pub(super) span: Range<usize>,
    /// `None` if the file does not have it: all defaults apply.
    table: Option<&'a DeTable<'a>>,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    pub(super) const fn new(
        context: &'a ParseContext<'a>,
        key: String,
        span: Range<usize>,
        table: Option<&'a DeTable<'a>>,
    ) -> Self {
        Self { context, key, span, table, known: Vec::new() }
    }

    pub(super) fn report(&self, text: impl Into<String>) {
        self.context.report(self.span.clone(), self.key.clone(), text);
    }

    pub(super) fn get(&mut self, key: &'static str) -> Option<Value<'a>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        #[cfg(test)]
        super::reference_page::note(self.path(key));
        let (_, value) = self.table?.iter().find(|(name, _)| name.get_ref() == key)?;
        Some(Value {
            context: self.context,
            key: self.path(key),
            span: value.span(),
            value: value.get_ref(),
        })
    }

    /// The value, or a report that it is missing, with the remedy.
    pub(super) fn required(&mut self, key: &'static str, remedy: &str) -> Option<Value<'a>> {
        let value = self.get(key);
        if value.is_none() {
            let text = format!("is missing; {remedy}");
            self.context.report(self.span.clone(), self.path(key), text);
        }
        value
    }

    /// The subsection `key`; an empty one if the file does not have it.
    pub(super) fn section(&mut self, key: &'static str) -> Self {
        self.optional(key)
            .unwrap_or_else(|| Self::new(self.context, self.path(key), self.span.clone(), None))
    }

    pub(super) fn optional(&mut self, key: &'static str) -> Option<Self> {
        self.get(key)?.section()
    }

    /// All entries: names chosen by the user, each with its location.
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
                (&**name.get_ref(), name.span(), Value { context: self.context, key, span, value })
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

    /// Reports the keys that no reader asked for.
    pub(super) fn finish(self) {
        for (name, place, value) in self.entries() {
            let remedy = match nearest(name, self.known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("remove it, or use one of {}", self.known.join(", ")),
            };
            self.context.report(place, value.key, format!("unknown key; {remedy}"));
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

/// A value with its key and location.
#[derive(Clone)]
pub(super) struct Value<'a> {
    pub(super) context: &'a ParseContext<'a>,
    pub(super) key: String,
    pub(super) span: Range<usize>,
    pub(super) value: &'a DeValue<'a>,
}

impl<'a> Value<'a> {
    pub(super) fn report(&self, text: impl Into<String>) {
        self.context.report(self.span.clone(), self.key.clone(), text);
    }

    pub(super) fn warn(&self, text: impl Into<String>) {
        self.context.warn(self.span.clone(), self.key.clone(), text);
    }

    pub(super) fn text(&self) -> Option<&'a str> {
        match self.value {
            DeValue::String(text) => Some(text),
            _ => self.mismatch("text; put it in quotes"),
        }
    }

    /// A non-empty text without control characters, which would break a line or a header.
    pub(super) fn name(&self) -> Option<&'a str> {
        let text = self.text()?;
        if text.trim().is_empty() {
            self.report("is empty; give it a value or remove it");
            return None;
        }
        if text.chars().any(char::is_control) {
            self.report("has control characters; remove them");
            return None;
        }
        Some(text)
    }

    pub(super) fn flag(&self) -> Option<bool> {
        match self.value {
            DeValue::Boolean(flag) => Some(*flag),
            _ => self.mismatch("true or false; write it without quotes"),
        }
    }

    pub(super) fn whole(&self, range: Range<u64>) -> Option<u64> {
        let DeValue::Integer(integer) = self.value else {
            return self.mismatch("a whole number; write it without quotes");
        };
        let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            let Range { start, end } = range;
            self.report(format!("{integer} is out of range; use {start} to {}", end - 1));
        }
        number
    }

    /// A number from `least` to `most`.
    pub(super) fn number(&self, least: f64, most: f64) -> Option<f64> {
        let number = match self.value {
            DeValue::Integer(number) => number.as_str().parse::<f64>().ok(),
            DeValue::Float(number) => number.as_str().parse::<f64>().ok(),
            _ => return self.mismatch("a number; write it without quotes"),
        };
        let number = number.filter(|number| (least..=most).contains(number));
        if number.is_none() {
            self.report(format!("is out of range; use {least} to {most}"));
        }
        number
    }

    pub(super) fn duration(&self, least: Duration, most: Duration) -> Option<Duration> {
        let DeValue::String(text) = self.value else {
            return self.mismatch("a duration; write it like \"4s\" or \"250ms\"");
        };
        let duration = duration::parse(text).map_err(|wrong| self.report(wrong)).ok()?;
        if !(least..=most).contains(&duration) {
            let [least, most] = [least, most].map(humantime::format_duration);
            self.report(format!("{text:?} is out of range; use {least} to {most}"));
            return None;
        }
        Some(duration)
    }

    pub(super) fn size(&self, least: u64, most: u64) -> Option<u64> {
        let DeValue::String(text) = self.value else {
            return self.mismatch("a size; write it like \"64 KiB\" or \"4 MiB\"");
        };
        let size = quantity::size(text).map_err(|wrong| self.report(wrong)).ok()?;
        if !(least..=most).contains(&size) {
            let [least, most] = [least, most].map(quantity::written_size);
            self.report(format!("{text:?} is out of range; use {least} to {most}"));
            return None;
        }
        Some(size)
    }

    /// One of a set of words.
    pub(super) fn one_of<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        let found = words.iter().find(|(word, _)| *word == text).map(|&(_, meaning)| meaning);
        if found.is_none() {
            let known: Vec<&str> = words.iter().map(|&(word, _)| word).collect();
            self.unknown(text, &known);
        }
        found
    }

    /// The values of a list.
    pub(super) fn list(&self) -> Option<Vec<Self>> {
        let DeValue::Array(values) = self.value else {
            return self.mismatch("a list; put it in brackets");
        };
        let list = values.iter().enumerate().map(|(index, value)| Self {
            context: self.context,
            key: format!("{}[{index}]", self.key),
            span: value.span(),
            value: value.get_ref(),
        });
        Some(list.collect())
    }

    pub(super) fn section(&self) -> Option<Section<'a>> {
        let table: &'a DeTable<'a> = match self.value {
            DeValue::Table(table) => table,
            _ => return self.mismatch("a table; write it as a section or in braces"),
        };
        Some(Section::new(self.context, self.key.clone(), self.span.clone(), Some(table)))
    }

    /// Reports a word that is not in `known`.
    pub(super) fn unknown(&self, word: &str, known: &[&str]) {
        let remedy = match nearest(word, known.iter().copied()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None if known.is_empty() => "there is none".to_owned(),
            None => format!("use one of {}", known.join(", ")),
        };
        self.report(format!("{word:?} is unknown; {remedy}"));
    }

    fn mismatch<T>(&self, wanted: &str) -> Option<T> {
        let kind = match self.value {
            DeValue::String(_) => "text",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.report(format!("is {kind} instead of {wanted}"));
        None
    }
}

pub(super) const DAY: Duration = Duration::from_secs(86_400);
