//! Finds in a request's body what only one resource holds, without a JSON tree.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use crate::azure::{
    Kind,
    fields::{BodyFields, Field},
    json::Scan,
};

/// Something in a body that one resource may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reference<'a> {
    /// An id of something that is elsewhere: no other resource can answer.
    Id(&'a [u8]),
    /// The id of an item that is here in full, which any resource can read.
    Item(&'a [u8]),
    /// What a resource has encrypted for itself.
    Sealed(&'a [u8]),
}

/// What came of reading a body.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// Whether the answer is to be stored, if the body says.
    pub(super) stored: Option<bool>,
    /// What was found by a scan, if there had to be one.
    pub(super) scanned: Option<BodyFields>,
}

/// Calls `each` for everything in a body of this kind that one resource may hold. An earlier scan
/// of the body found what is `known`.
///
/// Names of members count where the API has them, as they are written; text that a model is shown,
/// metadata and schemas never do. A body that is not JSON, or breaks, refers to what was found in
/// it until then.
pub(super) fn read_known<'a>(
    content: &'a [u8],
    known: Option<&BodyFields>,
    kind: Kind,
    each: impl FnMut(Reference<'a>),
) -> Read {
    // Inside a string the quotes of a name have backslashes before them.
    let worthwhile = match kind {
        Kind::Free => false,
        Kind::Chat => FILE_ID.find(content).is_some() || STORE.find(content).is_some(),
        Kind::Response | Kind::Kept => true,
    };
    if !worthwhile {
        return Read::default();
    }
    let mut walk = Walk { content, each, stored: None };
    let (scanned, _) =
        BodyFields::read_or_scan(known, content, |field, key, scan| walk.read(field, key, scan));
    Read { stored: walk.stored, scanned }
}

/// Calls `each` for what a body that was not scanned refers to; whether its answer is to be stored.
#[cfg(any(test, fuzzing))]
pub(crate) fn read<'a>(
    content: &'a [u8],
    kind: Kind,
    each: impl FnMut(Reference<'a>),
) -> Option<bool> {
    read_known(content, None, kind, each).stored
}

struct Walk<'a, F> {
    content: &'a [u8],
    each: F,
    stored: Option<bool>,
}

impl<'a, F: FnMut(Reference<'a>)> Walk<'a, F> {
    fn read(&mut self, field: Field, key: &'a [u8], scan: &mut Scan<'a>) -> Option<()> {
        match field {
            Field::Id => self.id(scan),
            Field::Conversation => match scan.peek()? {
                b'{' => self.object(scan, |walk, key, scan| match key {
                    b"id" => walk.id(scan),
                    _ => scan.skip().map(drop),
                }),
                _ => self.id(scan),
            },
            Field::Input | Field::Items => self.items(scan),
            Field::Store => {
                let value = scan.skip()?;
                self.stored = match &self.content[value] {
                    b"true" => Some(true),
                    b"false" => Some(false),
                    _ => self.stored,
                };
                Some(())
            }
            Field::Messages | Field::Tools | Field::Holder => self.inner(key, scan, DEEPEST),
            _ => scan.skip().map(drop),
        }
    }

    /// The input of a response, or what a conversation is given: a text, or items.
    fn items(&mut self, scan: &mut Scan<'a>) -> Option<()> {
        if scan.peek()? != b'[' {
            return scan.skip().map(drop);
        }
        scan.array(|scan| match scan.peek()? {
            b'{' => self.item(scan),
            _ => scan.skip().map(drop),
        })
    }

    fn item(&mut self, scan: &mut Scan<'a>) -> Option<()> {
        let (mut id, mut kind, mut is_sealed) = (None, &b""[..], false);
        self.object(scan, |walk, key, scan| {
            match key {
                b"id" => id = walk.text(scan)?,
                b"type" => kind = walk.text(scan)?.unwrap_or_default(),
                b"encrypted_content" => {
                    if let Some(text) = walk.text(scan)? {
                        is_sealed = true;
                        (walk.each)(Reference::Sealed(text));
                    }
                }
                b"content" | b"output" => walk.inner(key, scan, DEEPEST)?,
                _ => {
                    scan.skip()?;
                }
            }
            Some(())
        })?;
        if let Some(id) = id.filter(|id| id.len() <= LONGEST_ID) {
            // Reasoning that is not sealed was left with the resource.
            let needed = kind == b"item_reference" || (id.starts_with(b"rs_") && !is_sealed);
            (self.each)(if needed { Reference::Id(id) } else { Reference::Item(id) });
        }
        Some(())
    }

    /// Files and the like inside of messages, tools and attachments.
    fn inner(&mut self, key: &'a [u8], scan: &mut Scan<'a>, depth: u32) -> Option<()> {
        match (scan.peek()?, key) {
            // A caller's own words, whatever they look like.
            (_, b"metadata" | b"parameters" | b"schema" | b"json_schema" | b"arguments") => {
                scan.skip().map(drop)
            }
            (b'"', b"file_id" | b"file_ids" | b"vector_store_ids" | b"container") => self.id(scan),
            (b'{', _) if depth > 0 => {
                self.object(scan, |walk, key, scan| walk.inner(key, scan, depth - 1))
            }
            (b'[', _) if depth > 0 => scan.array(|scan| self.inner(key, scan, depth - 1)),
            _ => scan.skip().map(drop),
        }
    }

    fn object(
        &mut self,
        scan: &mut Scan<'a>,
        mut each: impl FnMut(&mut Self, &'a [u8], &mut Scan<'a>) -> Option<()>,
    ) -> Option<()> {
        let content = self.content;
        scan.object(|key, scan| each(self, &content[key], scan))
    }

    fn id(&mut self, scan: &mut Scan<'a>) -> Option<()> {
        if let Some(id) = self.text(scan)?.filter(|id| (1..=LONGEST_ID).contains(&id.len())) {
            (self.each)(Reference::Id(id));
        }
        Some(())
    }

    /// Skips a value, and gives it if it is a string, as it is written.
    fn text(&mut self, scan: &mut Scan<'a>) -> Option<Option<&'a [u8]>> {
        let value = &self.content[scan.skip()?];
        Some(value.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")))
    }
}

/// How much of encrypted content tells it from all other: a token of it begins with its time and
/// random bytes.
pub(super) const SEAL: usize = 128;
/// The service's own ids have some 60 characters.
pub(super) const LONGEST_ID: usize = 256;
/// A file in a tool's container is 4 levels deep, a list of files counted.
const DEEPEST: u32 = 6;
static FILE_ID: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"file_id\""));
static STORE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"store\""));

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn found(kind: Kind, body: &str) -> (Vec<String>, Option<bool>) {
        let mut found = Vec::new();
        let stored = read(body.as_bytes(), kind, |reference| {
            let (mark, text) = match reference {
                Reference::Id(text) => ("", text),
                Reference::Item(text) => ("~", text),
                Reference::Sealed(text) => ("#", text),
            };
            found.push(format!("{mark}{}", String::from_utf8_lossy(text)));
        });
        (found, stored)
    }

    #[track_caller]
    fn refers(kind: Kind, body: &Value, expected: &[&str]) {
        for body in [body.to_string(), format!("{body:#}")] {
            assert_eq!(found(kind, &body).0, expected, "{body}");
        }
    }

    #[test]
    fn a_response_refers_to_what_its_resource_holds() {
        for (body, expected) in [
            (json!({"input": "hi", "previous_response_id": "resp_1"}), &["resp_1"][..]),
            (json!({"previous_response_id": null, "conversation": "conv_1"}), &["conv_1"]),
            (json!({"conversation": {"id": "conv_1", "x": {"id": "no"}}}), &["conv_1"]),
            (json!({"input": [{"type": "item_reference", "id": "msg_1"}]}), &["msg_1"]),
            (json!({"input": [{"id": "rs_1", "summary": []}]}), &["rs_1"]),
            (
                json!({"input": [{"type": "reasoning", "id": "rs_1", "encrypted_content": "gA"}]}),
                &["#gA", "~rs_1"],
            ),
            (json!({"input": [{"id": "msg_1", "content": "hi", "role": "user"}]}), &["~msg_1"]),
            (
                json!({"input": [{"role": "user", "content": [
                    {"type": "input_file", "file_id": "assistant-1"},
                    {"type": "input_image", "file_id": "file-2", "detail": "low"}]}]}),
                &["assistant-1", "file-2"],
            ),
            (
                json!({"tools": [
                    {"type": "file_search", "vector_store_ids": ["vs_1", "vs_2"]},
                    {"type": "code_interpreter", "container": "cntr_1"},
                    {"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["f"]}}]}),
                &["vs_1", "vs_2", "cntr_1", "f"],
            ),
        ] {
            refers(Kind::Response, &body, expected);
        }
    }

    #[test]
    fn everything_else_refers_to_files_and_the_like() {
        refers(
            Kind::Chat,
            &json!({"messages": [{"role": "user", "content": [
            {"type": "file", "file": {"file_id": "assistant-1"}}]}]}),
            &["assistant-1"],
        );
        refers(
            Kind::Kept,
            &json!({"assistant_id": "asst_1", "additional_messages": [
            {"attachments": [{"file_id": "file-1", "tools": []}]}]}),
            &["file-1", "asst_1"],
        );
        refers(Kind::Kept, &json!({"input_file_id": "file-1", "endpoint": "/x"}), &["file-1"]);
        let resources = json!({"file_search": {"vector_store_ids": ["vs_1"]},
            "code_interpreter": {"file_ids": ["file-2"]}});
        refers(Kind::Kept, &json!({"tool_resources": resources}), &["file-2", "vs_1"]);
    }

    #[test]
    fn words_that_only_look_like_references_are_none() {
        let talk =
            r#"{"previous_response_id":"resp_1","file_id":"file-1","encrypted_content":"x"}"#;
        let schema = json!({"properties": {"file_id": {"default": {"file_id": "file-1"}},
            "vector_store_ids": {"enum": ["a"]}}, "required": ["file_id"]});
        for (kind, body) in [
            (Kind::Chat, json!({"messages": [{"content": talk}], "metadata": {"file_id": "f"}})),
            (
                Kind::Chat,
                json!({"messages": [{"content": "hi", "file": {"previous_response_id": "x"}}],
                "conversation_id": "x", "x": {"file_id": "y"}, "store": true}),
            ),
            (Kind::Response, json!({"input": talk, "metadata": {"previous_response_id": "x"}})),
            (
                Kind::Response,
                json!({"input": [{"role": "user", "content": talk}], "instructions": talk}),
            ),
            (Kind::Response, json!({"input": [{"type": "function_call", "arguments": talk}]})),
            (Kind::Response, json!({"tools": [{"type": "function", "parameters": schema}]})),
            (Kind::Response, json!({"input": ["item_reference", "id", "rs_1"], "id": "resp_1"})),
            (Kind::Response, json!({"previous_response_id": "", "conversation": 5})),
            (Kind::Free, json!({"input": "x", "previous_response_id": "resp_1"})),
        ] {
            refers(kind, &body, &[]);
        }
        let long = json!({"previous_response_id": "x".repeat(LONGEST_ID + 1)});
        refers(Kind::Response, &long, &[]);
    }

    #[test]
    fn it_is_told_whether_the_answer_is_stored() {
        let stored = |kind, body| found(kind, body).1;
        assert_eq!(stored(Kind::Response, r#"{"input":"hi","store":false}"#), Some(false));
        assert_eq!(stored(Kind::Response, r#"{"store":null,"input":{"store":true}}"#), None);
        assert_eq!(stored(Kind::Chat, r#"{"messages":[],"store" : true}"#), Some(true));
    }

    proptest! {
        #[test]
        fn no_body_panics_whatever_its_depth(
            pieces in "(\"(input|id|type|file_id|tools|store|conversation)\":?|[\\[\\]{}:, 1\"]|\\\\){0,40}",
            depth in 0_usize..200,
        ) {
            let deep = format!("{{\"tools\":{}{pieces}", "[{\"tools\":".repeat(depth));
            for body in [pieces.as_str(), &deep, &format!("{{\"input\":[{{{pieces}}}]}}")] {
                let known = BodyFields::of(body.as_bytes());
                for kind in [Kind::Chat, Kind::Response, Kind::Kept] {
                    let (all, stored) = found(kind, body);
                    let mut count = 0;
                    let read = read_known(body.as_bytes(), Some(&known), kind, |_| count += 1);
                    prop_assert_eq!((count, read.stored), (all.len(), stored));
                    prop_assert!(read.scanned.is_none());
                }
            }
        }
    }
}
