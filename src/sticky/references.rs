//! Finds references in a request's body that only one resource can resolve, without a JSON tree.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::walk::Walk;
use crate::azure::{Kind, MemberNames, fields::BodyFields};

/// A reference in a body to something that one resource may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reference<'a> {
    /// The id of an object stored elsewhere: no other resource can answer.
    Id(&'a [u8]),
    /// The id of an item that the body contains in full, so that any resource can read it, or of what
    /// produced it.
    Item(&'a [u8]),
    /// Content that a resource encrypted for itself.
    Encrypted(&'a [u8]),
}

/// The result of reading a body.
#[derive(Debug, Default)]
pub(super) struct BodyReferences {
    /// Whether the answer will be stored, if the body says so.
    pub(super) stored: Option<bool>,
    /// The fields found by a scan, if one was necessary.
    pub(super) scanned: Option<BodyFields>,
}

/// Calls `each` for every reference in a body of this kind. An earlier scan of the body found what is
/// `known`.
///
/// Member names count where the API defines them, as they are written; text shown to a model,
/// metadata and schemas never do. A body that is not JSON, or breaks off, has the references found up
/// to there.
pub(super) fn read_known<'a>(
    content: &'a [u8],
    known: Option<&BodyFields>,
    kind: Kind,
    each: impl FnMut(Reference<'a>),
) -> BodyReferences {
    // Inside a string, backslashes precede the quotes of a name.
    let has = |name: &Finder<'_>| name.find(content).is_some();
    if !is_worthwhile(kind, || has(&FILE_ID), || has(&STORE)) {
        return BodyReferences::default();
    }
    let mut walk = Walk::new(content, each);
    let (scanned, _) =
        BodyFields::read_or_scan(known, content, |field, key, scan| walk.read(field, key, scan));
    BodyReferences { stored: walk.stored, scanned }
}

/// Whether a body of this kind with these names may have references.
pub(super) fn may_refer(kind: Kind, names: MemberNames) -> bool {
    is_worthwhile(kind, || names.has_file_id(), || names.has_store())
}

fn is_worthwhile(
    kind: Kind,
    has_file_id: impl FnOnce() -> bool,
    has_store: impl FnOnce() -> bool,
) -> bool {
    match kind {
        Kind::Free => false,
        Kind::Shown => has_file_id(),
        Kind::Chat => has_file_id() || has_store(),
        Kind::Response | Kind::Kept => true,
    }
}

/// Calls `each` for the references of a body that was not scanned; returns whether its answer will be
/// stored.
#[cfg(any(test, fuzzing))]
pub(crate) fn read<'a>(
    content: &'a [u8],
    kind: Kind,
    each: impl FnMut(Reference<'a>),
) -> Option<bool> {
    read_known(content, None, kind, each).stored
}

/// How many bytes of encrypted content identify it: a token begins with its time and random bytes.
pub(super) const ENCRYPTED_PREFIX_BYTES: usize = 128;
/// The longest id considered. The service's own have some 60 characters.
pub(super) const MAX_ID_BYTES: usize = 256;
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
                Reference::Encrypted(text) => ("#", text),
            };
            found.push(format!("{mark}{}", String::from_utf8_lossy(text)));
        });
        (found, stored)
    }

    #[track_caller]
    fn refers(kind: Kind, body: &Value, expected: &[&str]) {
        let sorted = |mut found: Vec<String>| {
            found.sort_unstable();
            found
        };
        // Keys may come in the order in which they are written here, or in that of the alphabet.
        let expected = sorted(expected.iter().map(|id| (*id).to_owned()).collect());
        for body in [body.to_string(), format!("{body:#}")] {
            assert_eq!(sorted(found(kind, &body).0), expected, "{body}");
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
    fn a_shell_works_in_a_container_with_skills() {
        let auto = json!({"type": "container_auto", "file_ids": ["file-1"], "skills": [
            {"type": "skill_reference", "skill_id": "skill_1", "version": 2},
            {"type": "inline", "name": "skill_id", "source": {"data": "skill_id"}}]});
        let reference = json!({"type": "container_reference", "container_id": "cntr_1"});
        for (environment, expected) in [
            (auto, &["file-1", "skill_1"][..]),
            (reference, &["cntr_1"]),
            (json!({"type": "local", "skills": [{"name": "x", "path": "/skill_id"}]}), &[]),
            (json!({"container_id": 5, "skills": {"skill_id": null}}), &[]),
            (json!("container_id"), &[]),
        ] {
            let tool = json!({"type": "shell", "environment": environment});
            refers(Kind::Response, &json!({"tools": [{"type": "x"}, tool]}), expected);
        }
    }

    #[test]
    fn a_stored_prompt_is_with_its_resource_and_so_are_the_files_in_its_variables() {
        for (prompt, expected) in [
            (json!({"id": "pmpt_1", "version": "2"}), &["pmpt_1"][..]),
            (
                json!({"id": "pmpt_1", "variables": {"id": "no", "file_id": "no",
                    "document": {"type": "input_file", "file_id": "file-1"}}}),
                &["pmpt_1", "file-1"],
            ),
            (json!("a prompt with \"id\": \"no\""), &[]),
            (json!(["pmpt_1", {"id": "no"}]), &[]),
            (json!({"id": {"id": "no"}, "variables": ["file_id"]}), &[]),
            (json!(null), &[]),
        ] {
            refers(Kind::Response, &json!({"prompt": prompt, "input": "hi"}), expected);
        }
    }

    #[test]
    fn where_an_earlier_answer_worked_and_what_it_quoted_is_no_need() {
        let quoted = json!({"type": "output_text", "annotations": [
            {"type": "container_file_citation", "container_id": "cntr_2", "file_id": "cfile_1"}, 5]});
        let body = json!({"input": [
            {"type": "code_interpreter_call", "id": "ci_1", "container_id": "cntr_1"},
            {"type": "shell_call", "environment": {"type": "x", "container_id": "cntr_1"}},
            {"type": "shell_call", "environment": "container_id", "container_id": ["no"]},
            {"role": "assistant", "content": [quoted]}]});
        refers(Kind::Response, &body, &["~cntr_1", "~ci_1", "~cntr_1", "~cntr_2", "~cfile_1"]);
    }

    #[test]
    fn an_image_is_edited_where_its_files_are() {
        let images = json!([{"file_id": "file-1"}, {"image_url": "file_id"}, "file_id"]);
        for (body, expected) in [
            (json!({"images": images, "mask": {"file_id": "file-2"}}), &["file-1", "file-2"][..]),
            (json!({"prompt": "draw a \"file_id\"", "images": [{"file_id": 5}]}), &[]),
        ] {
            refers(Kind::Shown, &body, expected);
        }
        let form = "--x\r\n\r\n\"file_id\": \"file-1\"\r\n--x--";
        assert_eq!(found(Kind::Shown, form), (vec![], None));
    }

    #[test]
    fn an_evaluation_runs_over_a_file_and_its_own_rows_are_content() {
        let file = json!({"type": "jsonl", "source": {"type": "file_id", "id": "file-1"}});
        let rows = json!({"type": "jsonl", "source": {"type": "file_content", "content": [
            {"item": {"id": "no", "file_id": "no"}}]}});
        for (source, expected) in
            [(file, &["file-1"][..]), (rows, &[]), (json!({"source": "file_id"}), &[])]
        {
            refers(Kind::Kept, &json!({"name": "x", "data_source": source}), expected);
        }
        refers(Kind::Kept, &json!({"data_source": ["no"]}), &[]);
    }

    #[test]
    fn what_is_made_of_files_skills_and_videos_refers_to_them() {
        for (body, expected) in [
            (
                json!({"name": "x", "file_ids": ["file-1"], "skills": [{"skill_id": "skill_1"}]}),
                &["file-1", "skill_1"][..],
            ),
            (
                json!({"files": [{"file_id": "file-1", "attributes": {"file_id": "no"}}]}),
                &["file-1"],
            ),
            (json!({"prompt": "go on", "video": {"id": "video_1"}}), &["video_1"]),
            (json!({"prompt": "x", "input_reference": {"file_id": "file-1"}}), &["file-1"]),
        ] {
            refers(Kind::Kept, &body, expected);
        }
    }

    #[test]
    fn a_reference_is_found_behind_a_large_input() {
        let tool = json!({"type": "shell", "environment": {"container_id": "cntr_1"}});
        let input = json!([{"role": "user", "content": "file_id \" ".repeat(1 << 20)}]);
        refers(Kind::Response, &json!({"input": input, "tools": [tool]}), &["cntr_1"]);
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
        let long = json!({"previous_response_id": "x".repeat(MAX_ID_BYTES + 1)});
        refers(Kind::Response, &long, &[]);
    }

    #[test]
    fn whether_the_answer_is_stored_is_returned() {
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
                    prop_assert!(read.stored == stored && read.scanned.is_none());
                    // In a body that breaks off, a scan keeps the members before the break, and reads
                    // into the member at the break.
                    let breaks = serde_json::from_str::<Value>(body).is_err();
                    prop_assert!(count == all.len() || breaks && count < all.len());
                }
            }
        }
    }
}
