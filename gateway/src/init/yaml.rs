//! Reads YAML as JSON, as far as configurations need it, with a limit on each document's size.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

/// Reads the first document of a text.
///
/// # Errors
///
/// The problem and its location: a syntax error, or a document whose aliases make it too large.
pub(super) fn read(text: &str) -> Result<Value, String> {
    let mut reader = Reader::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| format!("is not YAML: {error}"))?;
        let is_over = matches!(event, Event::DocumentEnd);
        reader.take(event).map_err(|problem| format!("line {}: {problem}", span.start.line()))?;
        if is_over {
            break;
        }
    }
    Ok(reader.document.unwrap_or(Value::Null))
}

#[derive(Default)]
struct Reader {
    open: Vec<Open>,
    anchors: HashMap<usize, Value>,
    document: Option<Value>,
    /// Values, including those of aliases.
    count: usize,
}

/// An incomplete collection.
enum Open {
    Sequence(usize, Vec<Value>),
    Mapping(usize, Map<String, Value>, Option<String>),
}

impl Reader {
    fn take(&mut self, event: Event<'_>) -> Result<(), String> {
        let (anchor, value) = match event {
            Event::SequenceStart(anchor, _) => {
                self.open.push(Open::Sequence(anchor, Vec::new()));
                return self.check_depth();
            }
            Event::MappingStart(anchor, _) => {
                self.open.push(Open::Mapping(anchor, Map::new(), None));
                return self.check_depth();
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::Sequence(anchor, values)) => (anchor, Value::Array(values)),
                Some(Open::Mapping(anchor, values, _)) => (anchor, Value::Object(values)),
                None => return Ok(()),
            },
            Event::Scalar(text, style, anchor, _) => (anchor, scalar(&text, style)),
            Event::Alias(anchor) => {
                let value = self.anchors.get(&anchor).cloned().unwrap_or_default();
                self.count += size(&value);
                (0, value)
            }
            _ => return Ok(()),
        };
        self.count += 1;
        if self.count > MAX_VALUES {
            return Err(format!("the document has more than {MAX_VALUES} values"));
        }
        if anchor > 0 {
            self.anchors.insert(anchor, value.clone());
        }
        self.put(value);
        Ok(())
    }

    fn put(&mut self, value: Value) {
        match self.open.last_mut() {
            None => self.document = Some(value),
            Some(Open::Sequence(_, values)) => values.push(value),
            Some(Open::Mapping(_, values, key)) => match key.take() {
                None => {
                    *key = Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
                }
                // Merge key: the mapping's own entries take precedence.
                Some(merge) if merge == "<<" => {
                    let parts = match value {
                        Value::Array(parts) => parts,
                        one => vec![one],
                    };
                    for part in parts {
                        for (name, value) in part.as_object().into_iter().flatten() {
                            values.entry(name).or_insert_with(|| value.clone());
                        }
                    }
                }
                Some(key) => drop(values.insert(key, value)),
            },
        }
    }

    fn check_depth(&self) -> Result<(), String> {
        match self.open.len() > MAX_DEPTH {
            true => Err(format!("the document is nested more than {MAX_DEPTH} deep")),
            false => Ok(()),
        }
    }
}

/// A plain scalar by the core schema (YAML 1.2.2 section 10.3), any other scalar as text.
fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return text.into();
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => true.into(),
        "false" | "False" | "FALSE" => false.into(),
        _ => {
            let whole = text.parse::<i64>().ok().map(Value::from);
            let is_number = text.starts_with(|c: char| c.is_ascii_digit() || "-+.".contains(c));
            let real = || text.parse::<f64>().ok().filter(|_| is_number).map(Value::from);
            whole.or_else(real).filter(|it| !it.is_null()).unwrap_or_else(|| text.into())
        }
    }
}

/// The number of values in one, keys included; a long text counts as several.
fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => 1 + text.len() / 64,
        Value::Array(values) => values.iter().map(size).sum::<usize>() + 1,
        Value::Object(values) => {
            values.iter().map(|(key, value)| 1 + key.len() / 64 + size(value)).sum::<usize>() + 1
        }
        _ => 1,
    }
}

/// Far more than a configuration has; a few aliases can expand to billions.
const MAX_VALUES: usize = 100_000;
const MAX_DEPTH: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_configurations_are_written_with_is_read() {
        let text = "# a comment\nbase: &base\n  api_base: https://a\n  n: 1\nlist:\n- <<: *base\n  n: 2\n\
                    - {a: \"1\", b: 'x', c: ~, d: true, e: 0.5, f: os.environ/A}\ntext: |\n  one\n  two\n";
        let expected = json!({
            "base": { "api_base": "https://a", "n": 1 },
            "list": [
                { "api_base": "https://a", "n": 2 },
                { "a": "1", "b": "x", "c": null, "d": true, "e": 0.5, "f": "os.environ/A" },
            ],
            "text": "one\ntwo\n",
        });
        assert_eq!(read(text), Ok(expected));
        assert_eq!(read(""), Ok(Value::Null));
    }

    #[test]
    fn a_document_that_its_anchors_make_huge_is_refused() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let last = format!("*a{}", level - 1);
            bomb += &format!("a{level}: &a{level} [{}]\n", vec![last; 9].join(", "));
        }
        assert!(read(&bomb).unwrap_err().contains("more than 100000 values"));
        let key = "k".repeat(700_000);
        let long = format!("a: &a {{\"{key}\": v}}\nl:\n{}", "- *a\n".repeat(100));
        assert!(read(&long).unwrap_err().contains("more than 100000 values"));
        assert!(read(&"[".repeat(100_000)).is_err());
        assert!(read("a: [").unwrap_err().starts_with("is not YAML"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,60}|([a-z]: ?|- |&a |\\*a|<<: |\\[|\\]|\\{|\\}|\n| |\"|'){0,30}") {
            let _ = read(&text);
        }
    }
}
