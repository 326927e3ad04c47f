//! One value of the file, read as what it has to be; what is wrong with it is reported.

use std::{ops::Range, time::Duration};

use toml::de::{DeTable, DeValue};

use super::{nearest::nearest, parse_context::Sheet, quantity, section::Section};

/// A value with its key and its place.
#[derive(Clone)]
pub(super) struct Value<'a> {
    pub(super) sheet: &'a Sheet<'a>,
    pub(super) key: String,
    pub(super) span: Range<usize>,
    pub(super) value: &'a DeValue<'a>,
}

impl<'a> Value<'a> {
    pub(super) fn wrong(&self, text: impl Into<String>) {
        self.sheet.report(self.span.clone(), self.key.clone(), text);
    }

    pub(super) fn text(&self) -> Option<&'a str> {
        match self.value {
            DeValue::String(text) => Some(text),
            _ => self.mismatch("text belongs; put it in quotes"),
        }
    }

    /// Text with something in it and nothing that breaks a line or a header.
    pub(super) fn name(&self) -> Option<&'a str> {
        let text = self.text()?;
        if text.trim().is_empty() {
            self.wrong("is empty; give it a value or remove it");
            return None;
        }
        if text.chars().any(char::is_control) {
            self.wrong("has control characters; remove them");
            return None;
        }
        Some(text)
    }

    pub(super) fn flag(&self) -> Option<bool> {
        match self.value {
            DeValue::Boolean(flag) => Some(*flag),
            _ => self.mismatch("true or false belongs; write it without quotes"),
        }
    }

    pub(super) fn whole(&self, range: Range<u64>) -> Option<u64> {
        let DeValue::Integer(integer) = self.value else {
            return self.mismatch("a whole number belongs; write it without quotes");
        };
        let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            let Range { start, end } = range;
            self.wrong(format!("{integer} is out of range; use {start} to {}", end - 1));
        }
        number
    }

    /// A number above `0` up to `most`, or from it where `zero` is one too.
    pub(super) fn number(&self, least: f64, most: f64) -> Option<f64> {
        let number = match self.value {
            DeValue::Integer(number) => number.as_str().parse::<f64>().ok(),
            DeValue::Float(number) => number.as_str().parse::<f64>().ok(),
            _ => return self.mismatch("a number belongs; write it without quotes"),
        };
        let number = number.filter(|number| (least..=most).contains(number));
        if number.is_none() {
            self.wrong(format!("is out of range; use {least} to {most}"));
        }
        number
    }

    pub(super) fn duration(&self, least: Duration, most: Duration) -> Option<Duration> {
        let DeValue::String(text) = self.value else {
            return self.mismatch("a duration belongs; write it like \"4s\" or \"250ms\"");
        };
        let duration = quantity::duration(text).map_err(|wrong| self.wrong(wrong)).ok()?;
        if !(least..=most).contains(&duration) {
            let [least, most] = [least, most].map(humantime::format_duration);
            self.wrong(format!("{text:?} is out of range; use {least} to {most}"));
            return None;
        }
        Some(duration)
    }

    pub(super) fn size(&self, least: u64, most: u64) -> Option<u64> {
        let DeValue::String(text) = self.value else {
            return self.mismatch("a size belongs; write it like \"64 KiB\" or \"4 MiB\"");
        };
        let size = quantity::size(text).map_err(|wrong| self.wrong(wrong)).ok()?;
        if !(least..=most).contains(&size) {
            let [least, most] = [least, most].map(quantity::written_size);
            self.wrong(format!("{text:?} is out of range; use {least} to {most}"));
            return None;
        }
        Some(size)
    }

    /// One of a few words.
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
            return self.mismatch("a list belongs; put it in brackets");
        };
        let list = values.iter().enumerate().map(|(index, value)| Self {
            sheet: self.sheet,
            key: format!("{}[{index}]", self.key),
            span: value.span(),
            value: value.get_ref(),
        });
        Some(list.collect())
    }

    pub(super) fn section(&self) -> Option<Section<'a>> {
        let table: &'a DeTable<'a> = match self.value {
            DeValue::Table(table) => table,
            _ => return self.mismatch("a table belongs; write it as a section or in braces"),
        };
        Some(Section::new(self.sheet, self.key.clone(), self.span.clone(), Some(table)))
    }

    /// A word that is none of `known`.
    pub(super) fn unknown(&self, word: &str, known: &[&str]) {
        let remedy = match nearest(word, known.iter().copied()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None if known.is_empty() => "there is none".to_owned(),
            None => format!("use one of {}", known.join(", ")),
        };
        self.wrong(format!("{word:?} is not known; {remedy}"));
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
        self.wrong(format!("is {kind} where {wanted}"));
        None
    }
}
