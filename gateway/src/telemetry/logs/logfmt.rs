//! A log event as one line of `key=value` pairs (logfmt), for people and logfmt parsers.

use std::fmt::{self, Write};

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use super::json::Escaping;
use crate::telemetry::clock::time_of_day;

/// Writes `ts`, `level`, `msg` and the fields of the event, `target` last.
///
/// A value is quoted, and escaped like a JSON string, if it is empty or has a character that could
/// end it: white space, a quote, an equals sign, a backslash, a control character. So a line is
/// always one line, and every logfmt parser reads the pairs that were written.
pub(crate) struct Logfmt;

impl<S, N> FormatEvent<S, N> for Logfmt
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::with_capacity(LIKELY_LINE_BYTES);
        let metadata = event.metadata();
        let now = humantime::format_rfc3339_millis(time_of_day());
        let level = metadata.level().as_str().to_ascii_lowercase();
        write!(line, "ts={now} level={level}")?;
        let mut message = Message(None);
        event.record(&mut message);
        let mut pairs = Pairs { line };
        if let Some(message) = message.0 {
            pairs.text("msg", &message);
        }
        event.record(&mut pairs);
        pairs.text("target", metadata.target());
        pairs.line.push('\n');
        writer.write_str(&pairs.line)
    }
}

/// The message of an event, which precedes the other fields.
struct Message(Option<String>);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == MESSAGE {
            self.0 = Some(format!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == MESSAGE {
            self.0 = Some(value.to_owned());
        }
    }
}

struct Pairs {
    line: String,
}

impl Pairs {
    fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        if !value.is_empty() && value.bytes().all(is_plain) {
            self.line.push_str(value);
            return;
        }
        self.line.push('"');
        let _ = Escaping(&mut self.line).write_str(value);
        self.line.push('"');
    }

    fn plain(&mut self, name: &str, value: impl fmt::Display) {
        self.name(name);
        let _ = write!(self.line, "{value}");
    }

    fn name(&mut self, name: &str) {
        self.line.push(' ');
        // Field names come from this code and its dependencies; `r#type` is one.
        let is_of_name = |byte: char| byte.is_ascii_graphic() && !matches!(byte, '=' | '"');
        self.line.extend(name.chars().map(|byte| if is_of_name(byte) { byte } else { '_' }));
        self.line.push('=');
    }
}

impl Visit for Pairs {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() != MESSAGE {
            self.text(field.name(), value);
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field.name(), value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.plain(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() != MESSAGE {
            self.text(field.name(), &format!("{value:?}"));
        }
    }
}

/// Whether a byte needs no quotes. Bytes beyond ASCII need none.
fn is_plain(byte: u8) -> bool {
    byte > b' ' && !matches!(byte, b'"' | b'=' | b'\\' | 0x7f)
}

const MESSAGE: &str = "message";
const LIKELY_LINE_BYTES: usize = 640;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Parses the pairs of a line like go-logfmt: a quoted value is a JSON string.
    fn pairs(line: &str) -> Vec<(String, String)> {
        let mut rest = line.trim_start_matches(' ');
        let mut found = Vec::new();
        while !rest.is_empty() {
            let (name, after) = rest.split_once('=').expect("a pair");
            assert!(!name.contains([' ', '"']), "{line}");
            let length = if let Some(inside) = after.strip_prefix('"') {
                let mut is_escaped = false;
                let end = inside.find(|c| match (c, is_escaped) {
                    ('\\', false) => {
                        is_escaped = true;
                        false
                    }
                    ('"', false) => true,
                    _ => {
                        is_escaped = false;
                        false
                    }
                });
                end.expect("a closing quote") + 2
            } else {
                after.find(' ').unwrap_or(after.len())
            };
            let (value, next) = after.split_at(length);
            let value = match value.strip_prefix('"') {
                Some(_) => serde_json::from_str(value).expect("a JSON string"),
                None => value.to_owned(),
            };
            found.push((name.to_owned(), value));
            assert!(next.is_empty() || next.starts_with(' '), "{line}");
            rest = next.trim_start_matches(' ');
        }
        found
    }

    #[test]
    fn a_value_is_quoted_where_a_reader_could_take_it_otherwise() {
        for (value, written) in [
            ("sweden", " key=sweden"),
            ("", " key=\"\""),
            ("two words", " key=\"two words\""),
            ("a=b", " key=\"a=b\""),
            ("say \"no\"", " key=\"say \\\"no\\\"\""),
            ("one\ntwo\r", " key=\"one\\ntwo\\u000d\""),
            ("back\\slash", " key=\"back\\\\slash\""),
            ("größe", " key=größe"),
        ] {
            let mut line = Pairs { line: String::new() };
            line.text("key", value);
            assert_eq!(line.line, written);
        }
    }

    proptest! {
        #[test]
        fn any_values_are_read_back_as_they_were_from_one_line(
            one in any::<String>(),
            two in "[ \"=\\\\\n\ra-z]{0,12}",
        ) {
            let mut line = Pairs { line: String::new() };
            line.text("one", &one);
            line.plain("number", 7);
            line.text("two", &two);
            prop_assert!(!line.line.contains(['\n', '\r']));
            let expected = [("one", &*one), ("number", "7"), ("two", &*two)];
            let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
            prop_assert_eq!(pairs(&line.line), expected);
        }
    }
}
