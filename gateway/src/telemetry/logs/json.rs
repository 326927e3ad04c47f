//! A log event as one line of JSON.

use std::{
    cell::Cell,
    fmt::{self, Write},
    time::{SystemTime, UNIX_EPOCH},
};

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use crate::telemetry::clock::time_of_day;

/// Writes the flattened JSON of `tracing-subscriber`, directly into one string. Its own
/// implementation, with a serializer and a writer per piece, takes a quarter of the instructions of
/// a short request.
pub(crate) struct Json;

impl<S, N> FormatEvent<S, N> for Json
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
        let mut line = String::with_capacity(TYPICAL_LINE_BYTES);
        let metadata = event.metadata();
        line.push_str("{\"timestamp\":\"");
        push_time(&mut line, time_of_day());
        line.push_str("\",\"level\":\"");
        line.push_str(metadata.level().as_str());
        line.push('"');
        let mut fields = Fields { line };
        event.record(&mut fields);
        fields.string("target", metadata.target());
        fields.line.push_str("}\n");
        writer.write_str(&fields.line)
    }
}

/// Writes a time with microseconds. Its second was usually formatted for the last line.
fn push_time(line: &mut String, time: SystemTime) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let second = since.as_secs();
    let text = match SECOND.get() {
        Some((last, text)) if last == second => text,
        _ => {
            let mut text = [b'0'; SECOND_BYTES];
            let whole = humantime::format_rfc3339_seconds(time).to_string();
            if let Some(digits) = whole.as_bytes().first_chunk() {
                text = *digits;
            }
            SECOND.set(Some((second, text)));
            text
        }
    };
    line.push_str(str::from_utf8(&text).unwrap_or_default());
    line.push('.');
    // Of seven digits, so that the last six have their zeros.
    let micros = 1_000_000 + since.subsec_micros();
    line.push_str(&itoa::Buffer::new().format(micros)[1..]);
    line.push('Z');
}

thread_local! {
    /// The last second since 1970, and its text without `Z`.
    static SECOND: Cell<Option<(u64, [u8; SECOND_BYTES])>> = const { Cell::new(None) };
}
const SECOND_BYTES: usize = "1970-01-01T00:00:00".len();

/// The members that follow the first ones of an object.
struct Fields {
    line: String,
}

impl Fields {
    fn name(&mut self, name: &str) {
        // A name is an identifier, which needs no escaping.
        self.line.push_str(",\"");
        self.line.push_str(name);
        self.line.push_str("\":");
    }

    fn string(&mut self, name: &str, value: &str) {
        self.name(name);
        self.line.push('"');
        let _ = Escaping(&mut self.line).write_str(value);
        self.line.push('"');
    }

    fn plain(&mut self, name: &str, value: &str) {
        self.name(name);
        self.line.push_str(value);
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.string(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field.name(), itoa::Buffer::new().format(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field.name(), itoa::Buffer::new().format(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field.name(), if value { "true" } else { "false" });
    }

    /// JSON cannot represent numbers that are not finite.
    fn record_f64(&mut self, field: &Field, value: f64) {
        match value.is_finite() {
            true => self.plain(field.name(), &value.to_string()),
            false => self.plain(field.name(), "null"),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.name(field.name());
        self.line.push('"');
        let _ = write!(Escaping(&mut self.line), "{value:?}");
        self.line.push('"');
    }
}

/// The contents of a JSON string (RFC 8259 section 7).
pub(super) struct Escaping<'a>(pub(super) &'a mut String);

impl Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        // Most strings need no escaping, and are short.
        if !has_special(text.as_bytes()) {
            self.0.push_str(text);
            return Ok(());
        }
        while let Some(at) = rest.bytes().position(is_special) {
            let (plain, from) = rest.split_at(at);
            self.0.push_str(plain);
            match from.as_bytes()[0] {
                b'"' => self.0.push_str("\\\""),
                b'\\' => self.0.push_str("\\\\"),
                b'\n' => self.0.push_str("\\n"),
                control => write!(self.0, "\\u{control:04x}")?,
            }
            rest = &from[1..];
        }
        self.0.push_str(rest);
        Ok(())
    }
}

/// Whether a byte has to be escaped, eight at a time.
fn has_special(text: &[u8]) -> bool {
    // The last bytes, some of which are in the word before.
    let Some(last) = text.last_chunk() else { return text.iter().copied().any(is_special) };
    let mut found = 0;
    for word in text.as_chunks().0.iter().chain([last]) {
        let word = u64::from_le_bytes(*word);
        // Marks a byte below `least`, unless it is not ASCII. A borrow can mark the byte above one
        // that is marked, but no word without one.
        let below = |word: u64, least: u8| word.wrapping_sub(repeat(least)) & !word;
        let is = |byte: u8| below(word ^ repeat(byte), 1);
        found |= below(word, b' ') | is(b'"') | is(b'\\');
    }
    found & repeat(0x80) != 0
}

const fn is_special(byte: u8) -> bool {
    byte < b' ' || matches!(byte, b'"' | b'\\')
}

const fn repeat(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// The typical length of a request's line, in bytes.
const TYPICAL_LINE_BYTES: usize = 640;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_time_has_the_format_of_others_whatever_was_the_last_one() {
        let second = Duration::from_secs(1_764_597_600);
        for since in [
            Duration::ZERO,
            second,
            second + Duration::from_micros(1),
            second + Duration::from_nanos(999_999_999),
            Duration::from_secs(1),
            second,
        ] {
            let time = UNIX_EPOCH + since;
            let mut line = String::new();
            push_time(&mut line, time);
            assert_eq!(line, humantime::format_rfc3339_micros(time).to_string());
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_back_as_it_was(text in any::<String>()) {
            let mut fields = Fields { line: "{\"a\":1".to_owned() };
            fields.string("text", &text);
            fields.line.push('}');
            let read: serde_json::Value = serde_json::from_str(&fields.line).expect("JSON");
            prop_assert_eq!(read["text"].as_str(), Some(&*text));
        }
    }
}
