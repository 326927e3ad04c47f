//! Replaces the top-level `model` of a JSON body without building a tree.

use std::{ops::Range, slice};

use bytes::Bytes;

use super::{
    deployment::Deployment,
    splice::{BodyEdits, Edited},
};
use crate::azure::{
    error::without_mark,
    fields::{BodyFields, Field},
};

/// The ranges of the top-level `model` strings of a body, in order. A single one does not allocate.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum ModelRanges {
    #[default]
    Nowhere,
    Once(Range<usize>),
    Often(Vec<Range<usize>>),
}

impl ModelRanges {
    /// Finds them in `body`; none if it is not one whole JSON object.
    ///
    /// The scan is linear, does not recurse, and checks only the grammar of the outermost object; the
    /// service rejects errors further inside.
    pub(super) fn find(body: &[u8], known: Option<&BodyFields>) -> Self {
        Self::find_from(0, body, known).unwrap_or_else(|| Self::find_behind_mark(body))
    }

    /// Finds them in a body that is not an object from its first byte on: a reader may skip a byte
    /// order mark.
    #[cold]
    fn find_behind_mark(body: &[u8]) -> Self {
        match body.len() - without_mark(body).len() {
            0 => Self::Nowhere,
            mark => Self::find_from(mark, body, None).unwrap_or_default(),
        }
    }

    /// `None` if there is not one whole object from `start` on.
    fn find_from(start: usize, body: &[u8], known: Option<&BodyFields>) -> Option<Self> {
        let (mut found, text) = (Self::Nowhere, &body[start..]);
        let is_whole = BodyFields::read_only(known, text, |field, _, scan| {
            // The scan before has checked the other values.
            if known.is_some() && field != Field::Model {
                return Some(());
            }
            let value = scan.skip_outermost()?;
            if field == Field::Model && text[value.start] == b'"' {
                found.push(value.start + start..value.end + start);
            }
            Some(())
        });
        is_whole.then_some(found)
    }

    /// The body with every `model` replaced and all other bytes unchanged; `None` if there is none,
    /// or each is the deployment already.
    pub(super) fn replace(&self, body: &Bytes, deployment: &Deployment) -> Option<Edited> {
        let (name, mut edits) = (deployment.json(), BodyEdits::default());
        for range in self.as_slice() {
            if body.get(range.clone())? != name {
                edits.push(range.clone(), name);
            }
        }
        edits.apply(body)
    }

    fn as_slice(&self) -> &[Range<usize>] {
        match self {
            Self::Nowhere => &[],
            Self::Once(range) => slice::from_ref(range),
            Self::Often(ranges) => ranges,
        }
    }

    fn push(&mut self, range: Range<usize>) {
        match self {
            Self::Nowhere => *self = Self::Once(range),
            Self::Once(first) => *self = Self::Often(vec![first.clone(), range]),
            Self::Often(ranges) => ranges.push(range),
        }
    }
}

/// The body with every top-level `model` string replaced and all other bytes unchanged.
///
/// `None` if there is nothing to replace: no such member, a value that is not a string or is the
/// deployment already, or a body that is not one whole JSON object.
#[cfg(any(test, fuzzing))]
pub(crate) fn replace_model(
    body: &Bytes,
    known: Option<&BodyFields>,
    deployment: &Deployment,
) -> Option<Bytes> {
    ModelRanges::find(body, known).replace(body, deployment).map(Edited::into_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn replaced(body: &[u8]) -> Option<Bytes> {
        replace_model(&Bytes::copy_from_slice(body), None, &Deployment::new("ptu \"eu\"").unwrap())
    }

    #[test]
    fn the_top_level_model_is_replaced_and_nothing_else() {
        for (body, expected) in [
            (r#"{"model":"a"}"#, r#"{"model":"ptu \"eu\""}"#),
            (r#"{"model":"","x":1}"#, r#"{"model":"ptu \"eu\"","x":1}"#),
            (
                " \r\n{\t\"model\" :\n\"a\\\"b\\\\\" , \"n\" : -1.5e+3 } \n",
                " \r\n{\t\"model\" :\n\"ptu \\\"eu\\\"\" , \"n\" : -1.5e+3 } \n",
            ),
            (r#"{"mod\u0065l":"a"}"#, r#"{"mod\u0065l":"ptu \"eu\""}"#),
            ("\u{feff}{\"model\":\"a\"}", "\u{feff}{\"model\":\"ptu \\\"eu\\\"\"}"),
            (r#"{"\u006D\u006f\u0064el":"a"}"#, r#"{"\u006D\u006f\u0064el":"ptu \"eu\""}"#),
            (
                r#"{"model":"a","m":{"model":"x"},"model":null,"model":"b"}"#,
                r#"{"model":"ptu \"eu\"","m":{"model":"x"},"model":null,"model":"ptu \"eu\""}"#,
            ),
            (
                r#"{"a":[{"model":"]"},"}{",[[]]],"b":"\"model\":\"x\"","c":true,"model":"a"}"#,
                r#"{"a":[{"model":"]"},"}{",[[]]],"b":"\"model\":\"x\"","c":true,"model":"ptu \"eu\""}"#,
            ),
        ] {
            assert_eq!(replaced(body.as_bytes()).as_deref(), Some(expected.as_bytes()), "{body}");
        }
    }

    #[test]
    fn a_body_with_nothing_to_replace_is_left_alone() {
        for body in [
            r#"{}"#,
            r#" { } "#,
            r#"{"model":null}"#,
            r#"{"model":4}"#,
            r#"{"model":["a"]}"#,
            r#"{"model":{"model":"a"}}"#,
            r#"{"model":"ptu \"eu\""}"#,
            r#"{"Model":"a","models":"b","mode":"c","":"d"}"#,
            r#"{"mod\u0045l":"a","mod\\u0065l":"b","model\u0000":"c","mod\u00":"d","\model":"e"}"#,
            r#"{"messages":[{"model":"a"}]}"#,
            r#"[{"model":"a"}]"#,
            r#""model""#,
            "null",
        ] {
            assert_eq!(replaced(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn a_broken_body_is_left_alone() {
        for body in [
            "",
            " ",
            "\u{feff}\u{feff}{\"model\":\"a\"}",
            r#"{"model":"a"}}"#,
            r#"{"model":"a"}{"model":"b"}"#,
            r#"{"model":"a",}"#,
            r#"{"model":"a""x":1}"#,
            r#"{"model":"a" x}"#,
            r#"{"model" "a"}"#,
            r#"{"model":"a","x":}"#,
            r#"{"model":"a","x"}"#,
            r#"{"model":"a","x":1 2}"#,
            r#"{"model":"a","x":[1}"#,
            r#"{,"model":"a"}"#,
            r#"{model:"a"}"#,
            r#"{'model':'a'}"#,
            "--XX\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nx\r\n--XX--",
        ] {
            assert_eq!(replaced(body.as_bytes()), None, "{body}");
        }
        let whole = br#"{"model":"a\\","x":[{"y":"\""}],"z":null}"#;
        for length in 0..whole.len() {
            assert_eq!(replaced(&whole[..length]), None, "{length}");
        }
        assert!(replaced(whole).is_some());
    }

    #[test]
    fn deep_nesting_does_not_recurse() {
        let deep = 1 << 20;
        let body = format!(r#"{{"a":{}{},"model":"a"}}"#, "[".repeat(deep), "]".repeat(deep));
        assert_eq!(replaced(body.as_bytes()).unwrap().len(), body.len() + 9);
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "(model|[\"\\\\\\[\\]{}:,]|\\PC){0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                object(inner).prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    fn object(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Vec<(String, Value)>> {
        prop::collection::vec(("(model|mo|[\"\\\\]|\\PC){0,3}", value), 0..6)
    }

    const PIECES: &str = "(\"model\":\"[ab]\",?|\"x\":null,|[\\[\\]{}:, 1\"\\\\]){0,20}";

    proptest! {
        #[test]
        fn an_edit_equals_parse_change_and_serialise(
            members in object(json()),
            model in "\\PC{0,12}",
            name in "\\PC{1,12}",
            pretty in any::<bool>(),
        ) {
            let Some(deployment) = Deployment::new(&name) else { return Ok(()) };
            let mut tree: serde_json::Map<_, _> = members.into_iter().collect();
            tree.insert("model".into(), model.clone().into());
            let write = |tree: &serde_json::Map<String, Value>| {
                let text = if pretty {
                    serde_json::to_string_pretty(tree)
                } else {
                    serde_json::to_string(tree)
                };
                Bytes::from(text.unwrap())
            };
            let body = write(&tree);
            let edited = replace_model(&body, None, &deployment);
            tree.insert("model".into(), name.clone().into());
            if model == name {
                prop_assert_eq!(edited, None);
            } else {
                prop_assert_eq!(edited, Some(write(&tree)), "the same bytes but for the value");
            }
        }

        #[test]
        fn arbitrary_bytes_change_only_in_the_values_of_model(
            pieces in PIECES,
            wrapped in any::<bool>(),
        ) {
            let mut body = pieces.into_bytes();
            if wrapped {
                body = [b"{", &*body, b"\"z\":0}"].concat();
            }
            let body = Bytes::from(body);
            let long = replace_model(&body, None, &Deployment::new("*").unwrap());
            if let Some(edited) = long {
                let (mut old, mut new) = (&body[..], &edited[..]);
                while let Some(at) = memchr::memmem::find(new, b"\"model\":\"*\"") {
                    let value = at + b"\"model\":".len();
                    prop_assert_eq!(&new[..value], &old[..value]);
                    let was = &old[value..value + 3];
                    prop_assert!(was == b"\"a\"" || was == b"\"b\"", "{was:?}");
                    (old, new) = (&old[value + 3..], &new[value + 3..]);
                }
                prop_assert_eq!(old, new);
            }
        }

        #[test]
        fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..100)) {
            replaced(&noise);
            replaced(&[b"{\"model\":\"a\",\"x\":", &*noise, b"}"].concat());
        }
    }
}
