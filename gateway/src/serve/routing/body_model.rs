//! Finds the model in a body, in JSON and in forms, complete or only its beginning.

use std::fmt;

use bytes::Bytes;
use memchr::memmem;
use serde::de::{DeserializeSeed, Deserializer, Visitor};
use serde_json::Value;
use tower_spillover::azure::{Parts, ScannedBody};

use super::json_value;

/// What a body, or the beginning of one, says about its model.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BodyModel {
    Model(String),
    /// No model in the part that was read.
    Nothing,
    /// Two different models; it is unknown which one the service would use.
    TwoModels,
    /// Complete, but not valid JSON or not a valid form.
    Unreadable,
}

/// Reads a body. `whole` means that nothing follows. Also returns the result of a scan, if there
/// was one.
pub(crate) fn asked_for(
    content_type: Option<&[u8]>,
    body: &Bytes,
    whole: bool,
) -> (BodyModel, Option<ScannedBody>) {
    let must_be_read = match content_type {
        _ if body.iter().all(u8::is_ascii_whitespace) => return (BodyModel::Nothing, None),
        Some(form) if starts_with_ignoring_case(form, b"multipart/") => {
            return (form_model(form, body, whole), None);
        }
        Some(kind) => whole && memmem::find(&kind.to_ascii_lowercase(), b"json").is_some(),
        None => whole,
    };
    let (model, scanned) = json_model(body, must_be_read);
    (model, Some(scanned))
}

/// Validates every key and value, so that what the service would refuse is refused here and the
/// layers need not parse it again.
fn json_model(body: &Bytes, must_be_read: bool) -> (BodyModel, ScannedBody) {
    let mut found = Found::default();
    let (scanned, is_read) = ScannedBody::scan(body, |key, text| {
        if !IsModel.deserialize(&mut serde_json::Deserializer::from_slice(key)).ok()? {
            return json_value::length(text);
        }
        let (value, length) = read(text)?;
        if let Value::String(model) = value {
            found.add(model);
        }
        Some(length)
    });
    let model = if must_be_read && !is_read { BodyModel::Unreadable } else { found.asked() };
    (model, scanned)
}

/// The value at the beginning of `text`, and its length.
fn read(text: &[u8]) -> Option<(Value, usize)> {
    let mut values = serde_json::Deserializer::from_slice(text).into_iter();
    let value = values.next()?.ok()?;
    Some((value, values.byte_offset()))
}

#[derive(Default)]
struct Found {
    model: Option<String>,
    differs: bool,
}

impl Found {
    fn add(&mut self, model: String) {
        match &self.model {
            Some(first) => self.differs |= *first != model,
            None => self.model = Some(model),
        }
    }

    fn asked(self) -> BodyModel {
        match self.model {
            _ if self.differs => BodyModel::TwoModels,
            Some(model) => BodyModel::Model(model),
            None => BodyModel::Nothing,
        }
    }
}

/// Whether a key is `model`, without storing it.
struct IsModel;

impl<'de> DeserializeSeed<'de> for IsModel {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<bool, D::Error> {
        key.deserialize_str(self)
    }
}

impl Visitor<'_> for IsModel {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(key == "model")
    }
}

/// The content of every complete part named `model`. A complete but invalid form may name another
/// model after the place where this reader stops, so it is refused.
fn form_model(content_type: &[u8], body: &[u8], whole: bool) -> BodyModel {
    let Ok(parts) = Parts::of(body, content_type) else {
        return if whole { BodyModel::Unreadable } else { BodyModel::Nothing };
    };
    let mut found = Found::default();
    for part in parts {
        match part {
            Ok(part) if part.is_model && !part.is_plain => return BodyModel::Unreadable,
            Ok(part) if part.is_model => {
                found.add(String::from_utf8_lossy(&body[part.content]).into_owned());
            }
            Ok(_) => {}
            Err(_) if whole => return BodyModel::Unreadable,
            Err(_) => break,
        }
    }
    found.asked()
}

fn starts_with_ignoring_case(text: &[u8], start: &[u8]) -> bool {
    text.get(..start.len()).is_some_and(|text| text.eq_ignore_ascii_case(start))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::*;

    fn json(body: &str, whole: bool) -> BodyModel {
        asked(Some(b"application/json; charset=utf-8"), body, whole)
    }

    fn asked(content_type: Option<&[u8]>, body: &str, whole: bool) -> BodyModel {
        asked_for(content_type, &Bytes::copy_from_slice(body.as_bytes()), whole).0
    }

    fn model(name: &str) -> BodyModel {
        BodyModel::Model(name.to_owned())
    }

    #[test]
    fn the_top_level_model_is_read_whatever_surrounds_it() {
        for body in [
            r#"{"model":"gpt","x":{"model":"no"}}"#,
            r#"{"messages":[{"model":"no"}],"mod\u0065l":"gpt"}"#,
            r#" {"model":null,"model":"gpt","model":"gpt"} "#,
        ] {
            assert_eq!(json(body, true), model("gpt"), "{body}");
        }
        assert_eq!(json(r#"{"messages":[]}"#, true), BodyModel::Nothing);
        assert_eq!(asked(None, "", true), BodyModel::Nothing);
        assert_eq!(json(r#"{"model":"a","model":"b"}"#, true), BodyModel::TwoModels);
    }

    #[test]
    fn a_broken_body_is_unreadable_only_when_it_is_whole_and_said_to_be_json() {
        let begun = r#"{"model":"gpt","input":"long te"#;
        assert_eq!(json(begun, false), model("gpt"));
        assert_eq!(json(begun, true), BodyModel::Unreadable);
        assert_eq!(json("\u{feff}{\"model\":\"gpt\"}", true), BodyModel::Unreadable);
        assert_eq!(asked(Some(b"audio/wav"), "RIFF", true), BodyModel::Nothing);
    }

    proptest! {
        #[test]
        fn what_serde_takes_for_no_object_is_unreadable(
            pieces in prop::collection::vec(prop::sample::select(PIECES), 0..12),
            noise in "[ -~]{0,9}",
            is_noisy in any::<bool>(),
        ) {
            let mut body = [b"{", &*pieces.concat(), b"}"].concat();
            if is_noisy {
                body.splice(body.len() / 2..body.len() / 2, noise.bytes());
            }
            let is_object = serde_json::from_slice::<HashMap<String, IgnoredAny>>(&body).is_ok();
            let (model, _) = asked_for(None, &body.into(), true);
            prop_assert_eq!(model != BodyModel::Unreadable, is_object);
        }
    }

    const PIECES: &[&[u8]] = &[
        b"\"model\":",
        b"\"mod\\u0065l\":",
        b"\"\\ud800\":",
        b"\"\xff\":",
        b"\"x\":",
        b"\"a\"",
        b"\"\n\"",
        b"\"\\x\"",
        b"1",
        b"01",
        b"1.",
        b"tru",
        b"null",
        b"[",
        b"]",
        b"{",
        b"}",
        b"[1 2]",
        b"[[]]",
        b",",
        b", ",
        b"\xef\xbb\xbf",
    ];

    #[test]
    fn a_form_names_its_model_in_a_field() {
        let form = "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"model\"\r\n\
                    \r\nname=\"model\"\r\n--XX\r\ncontent-disposition: form-data; name=\"model\"\
                    \r\n\r\nwhisper\r\n--XX--\r\n";
        let kind = Some(&b"Multipart/Form-Data; boundary=\"XX\""[..]);
        assert_eq!(asked(kind, form, true), model("whisper"));
        let doubled = form.replace("filename=\"model\"", "x=y").replace("\"file\"", "model");
        assert_eq!(asked(kind, &doubled, true), BodyModel::TwoModels);
        let begun = &form[..form.len() - 20];
        assert_eq!(asked(kind, begun, false), BodyModel::Nothing);
    }

    #[test]
    fn a_broken_form_hides_no_second_model() {
        let field = |head: &str, content: &str| format!("{head}\r\n\r\n{content}\r\n");
        let model_field = "content-disposition: form-data; name=model";
        let (cheap, dear) = (field(model_field, "cheap"), field(model_field, "dear"));
        let kind = Some(&b"multipart/form-data; boundary=XX"[..]);
        for broken in [
            format!("--XX\r\n{cheap}--XXjunk\r\n{dear}--XX\r\n{dear}--XX--\r\n"),
            format!("--XX\r\n{cheap}--XX\r\nno header\r\n\r\n1\r\n--XX\r\n{dear}--XX--\r\n"),
            format!("--XX\r\n{cheap}--XX\r\n{dear}"),
            format!("\n--XX\n{dear}\n--XX--"),
        ] {
            assert_eq!(asked(kind, &broken, true), BodyModel::Unreadable, "{broken}");
        }
        let mixed = format!("--XX\r\n{cheap}--XX--\r\n");
        let kind = Some(&b"multipart/mixed; boundary=XX"[..]);
        assert_eq!(asked(kind, &mixed, true), model("cheap"));
    }
}
