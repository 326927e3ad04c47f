//! Finds the `usage` of an answer as it passes.

mod document;

use std::{fmt, sync::LazyLock};

use http::HeaderValue;
use memchr::memmem;

use self::document::{Document, at_end};
use super::{
    ContentKind,
    events::{EventField, EventLines, StreamPart, ends_event},
    json::mark,
};

/// Tokens as the service counted them, from the `usage` of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Tokens of the prompt, including cached ones.
    pub prompt: u64,
    /// Tokens of the prompt that were in the service's cache.
    pub cached: u64,
    /// Tokens generated, including reasoning and all choices.
    pub completion: u64,
}

impl Usage {
    /// A usage of `prompt` tokens, `cached` of them from the cache, and `completion` generated.
    pub const fn new(prompt: u64, cached: u64, completion: u64) -> Self {
        Self { prompt, cached, completion }
    }
}

/// Scans the bytes of an answer for its `usage`, in constant memory whatever the size of the answer.
///
/// The gate corrects its estimates with it, and callers can count tokens. It finds the `usage` of a
/// completion, a response or embeddings, as JSON or in an event stream, but not in text that a model
/// wrote.
///
/// ```
/// use http::HeaderValue;
/// use tower_spillover::gate::cost::{Usage, UsageScan};
///
/// let kind = HeaderValue::from_static("application/json");
/// let mut scan = UsageScan::new(Some(&kind)).expect("JSON may have a usage");
/// scan.push(br#"{"id":"chatcmpl-1","usage":{"prompt_tok"#);
/// scan.push(br#"ens":11,"completion_tokens":14}}"#);
/// assert_eq!(scan.finish(), Some(Usage::new(11, 0, 14)));
/// ```
pub struct UsageScan {
    /// `None` for an answer that is one JSON text.
    lines: Option<EventLines>,
    document: Document,
    usage: Option<Usage>,
}

impl UsageScan {
    /// A scan of an answer with this `content-type`; `None` if that is neither JSON nor an event
    /// stream.
    pub fn new(content_type: Option<&HeaderValue>) -> Option<Self> {
        let lines = match ContentKind::named(content_type) {
            ContentKind::EventStream => Some(EventLines::default()),
            ContentKind::Json => None,
            ContentKind::Multipart | ContentKind::Other => return None,
        };
        Some(Self { lines, document: Document::default(), usage: None })
    }

    /// Reads the next bytes of the answer, in any chunking.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.lines.is_some() { self.read_events(bytes) } else { self.read(bytes) }
    }

    /// Reads the last bytes of the answer. An answer that arrives at once, as short ones do, is read
    /// from its end.
    pub(crate) fn push_last(&mut self, bytes: &[u8]) {
        let is_whole = self.lines.is_none() && self.document.is_fresh() && self.usage.is_none();
        match is_whole.then(|| at_end(bytes)).flatten() {
            Some(usage) => self.usage = Some(usage),
            None => self.push(bytes),
        }
    }

    /// The last complete usage in the part of the answer that was read.
    pub fn finish(self) -> Option<Usage> {
        self.usage
    }

    fn read(&mut self, json: &[u8]) {
        if let Some(usage) = self.document.push(json) {
            self.usage = Some(usage);
        }
    }

    fn read_events(&mut self, mut bytes: &[u8]) {
        // Whole events without a usage, as nearly all pieces of a stream are.
        let is_at_line = self.lines.as_ref().is_some_and(EventLines::is_at_line);
        if is_at_line && self.document.is_fresh() && bytes.ends_with(b"\n\n") && !has_usage(bytes) {
            return;
        }
        while let Some(part) = self.lines.as_mut().and_then(|lines| lines.next(&mut bytes)) {
            match part {
                StreamPart::Value(EventField::Data, data) => {
                    if !self.may_skip(data, bytes) {
                        self.read(data);
                    }
                }
                StreamPart::EndOfEvent => self.document = Document::default(),
                StreamPart::Value(EventField::Event, _) | StreamPart::EndOfLine(_) => {}
            }
        }
    }

    /// Whether `data` is an event by itself, as nearly all are, and has no usage but `null`.
    fn may_skip(&self, data: &[u8], after: &[u8]) -> bool {
        ends_event(after) && self.document.is_fresh() && !has_usage(data)
    }
}

/// Shows nothing of the answer.
impl fmt::Debug for UsageScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UsageScan").field("usage", &self.usage).finish_non_exhaustive()
    }
}

/// Whether some `"usage"` in `data` names an object. In text that is not JSON, the closing quote of
/// one can open the next.
fn has_usage(mut data: &[u8]) -> bool {
    while let Some(at) = USAGE.find(data) {
        let end = at + USAGE.needle().len();
        if begins_object(&data[end..]) {
            return true;
        }
        data = &data[end - 1..];
    }
    false
}

/// Whether an object follows a name, as a [`Document`] sees it, which looks only at marks.
fn begins_object(rest: &[u8]) -> bool {
    rest.get(mark(rest)) == Some(&b'{')
}

static USAGE: LazyLock<memmem::Finder<'static>> =
    LazyLock::new(|| memmem::Finder::new(b"\"usage\""));

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::Index};
    use serde_json::{Value, json};

    use super::*;

    fn scan(content_type: &'static str) -> Option<UsageScan> {
        UsageScan::new(Some(&HeaderValue::from_static(content_type)))
    }

    fn usage_in(content_type: &'static str, pieces: &[&[u8]]) -> Option<Usage> {
        let mut scan = scan(content_type).expect("a type that has a usage");
        pieces.iter().for_each(|piece| scan.push(piece));
        scan.finish()
    }

    fn in_json(text: &str) -> Option<Usage> {
        usage_in("application/json", &[text.as_bytes()])
    }

    fn in_events(text: &str) -> Option<Usage> {
        usage_in("text/event-stream", &[text.as_bytes()])
    }

    /// Answers as the service sends them, with their usage.
    fn samples() -> Vec<(&'static str, String, Option<Usage>)> {
        let known = Some(Usage::new(2_048, 1_024, 28));
        vec![
            ("application/json", CHAT.to_owned(), known),
            ("application/json; charset=utf-8", pretty(CHAT), known),
            ("application/json", RESPONSE.to_owned(), known),
            ("application/json", EMBEDDINGS.to_owned(), Some(Usage::new(8, 0, 0))),
            ("application/json", r#"{"error":{"code":"429","message":"usage"}}"#.to_owned(), None),
            ("text/event-stream", chat_events(true), known),
            ("text/event-stream; charset=utf-8", chat_events(true).replace('\n', "\r\n"), known),
            ("text/event-stream", chat_events(false), None),
            ("text/event-stream", response_events(), known),
        ]
    }

    #[test]
    fn every_form_of_answer_has_its_usage_found() {
        for (content_type, answer, usage) in samples() {
            assert_eq!(usage_in(content_type, &[answer.as_bytes()]), usage, "{answer}");
        }
    }

    #[test]
    fn the_usage_of_an_answer_that_comes_at_once_is_read_from_its_end() {
        let known = Some(Usage::new(2_048, 1_024, 28));
        for answer in [CHAT.to_owned(), pretty(CHAT)] {
            assert_eq!(at_end(answer.as_bytes()), known, "{answer}");
        }
    }

    #[test]
    fn only_json_and_event_streams_are_read() {
        for read in [
            "application/json",
            "Application/JSON ; charset=utf-8",
            "application/problem+json",
            "text/event-stream;charset=utf-8",
        ] {
            assert!(scan(read).is_some(), "{read}");
        }
        for other in ["audio/mpeg", "text/plain", "application/jsonl", "application/grpc", ""] {
            assert!(scan(other).is_none(), "{other}");
        }
        assert!(UsageScan::new(None).is_none());
    }

    fn json() -> impl Strategy<Value = String> {
        let leaf = prop::sample::select(
            &[
                "5",
                "null",
                "[]",
                "{}",
                r#""usage""#,
                r#""\"usage\":{""#,
                r#""}\\""#,
                r#"{"prompt_tokens":1}"#,
                r#"{ "input_tokens" : 2 , "x":{"usage":{"prompt_tokens":9}} }"#,
            ][..],
        );
        let key = prop::sample::select(&["usage", "response", r#"a\"usage"#, r"a\\", "a"][..]);
        leaf.prop_map(str::to_owned).prop_recursive(3, 20, 4, move |inner| {
            let member = (key.clone(), inner.clone(), prop::sample::select(&["", " ", "\n"][..]))
                .prop_map(|(key, value, space)| {
                    format!("{space}\"{key}\"{space}:{space}{value}{space}")
                });
            let object = prop::collection::vec(member, 0..4)
                .prop_map(|members| format!("{{{}}}", members.join(",")));
            let list = prop::collection::vec(inner, 0..3)
                .prop_map(|values| format!("[{}]", values.join(",")));
            prop_oneof![3 => object, 1 => list]
        })
    }

    proptest! {
        #[test]
        fn what_is_read_from_the_end_is_what_is_read_from_the_beginning(
            (text, padding) in (json(), 0..1_200_usize),
        ) {
            let text = text.replacen('{', &format!(r#"{{"pad":"{}","#, "\\\"".repeat(padding)), 1);
            prop_assume!(serde_json::from_str::<Value>(&text).is_ok());
            if let Some(usage) = at_end(text.as_bytes()) {
                prop_assert_eq!(in_json(&text), Some(usage), "{}", text);
            }
        }
    }

    #[test]
    fn only_the_outermost_usage_or_that_of_the_response_counts() {
        let five = Some(Usage::new(5, 0, 0));
        for (text, usage) in [
            (r#"{"usage":{"prompt_tokens":5},"choices":[{"usage":{"prompt_tokens":6}}]}"#, five),
            (r#"{"response":{"usage":{"input_tokens":5}}}"#, five),
            (r#"{"a":{"usage":{"input_tokens":5}}}"#, None),
            (r#"{"response":[{"usage":{"input_tokens":5}}]}"#, None),
            (r#"{"response":{"a":{"usage":{"input_tokens":5}}}}"#, None),
            (r#"{"response":{},"a":{"usage":{"input_tokens":5}}}"#, None),
            (r#"[{"usage":{"prompt_tokens":5}}]"#, None),
            (r#"["usage",{"prompt_tokens":5}]"#, None),
            (r#"{"a":"usage","b":{"prompt_tokens":5}}"#, None),
            (r#"{"a":"\"usage\":{\"prompt_tokens\":5}"}"#, None),
            (r#"{"a\"usage":{"prompt_tokens":5}}"#, None),
            (r#"{"usages":{"prompt_tokens":5}}"#, None),
        ] {
            assert_eq!(in_json(text), usage, "{text}");
            assert!([None, usage].contains(&at_end(text.as_bytes())), "{text}");
        }
    }

    #[test]
    fn a_usage_without_tokens_is_none() {
        for usage in ["null", "{}", "[]", "7", r#"{"total_tokens":5}"#, r#"{"prompt_tokens":null}"#]
        {
            assert_eq!(in_json(&format!(r#"{{"usage":{usage}}}"#)), None, "{usage}");
        }
        let details = r#"{"usage":{"prompt_tokens":5,"prompt_tokens_details":null,"z":[]}}"#;
        assert_eq!(in_json(details), Some(Usage::new(5, 0, 0)));
    }

    #[test]
    fn the_last_usage_of_a_stream_counts_and_a_broken_one_does_not() {
        let event = |tokens| format!("data: {{\"usage\":{{\"prompt_tokens\":{tokens}}}}}\n\n");
        let two = format!("{}{}data: {{\"usage\":{{\"prompt_to", event(1), event(2));
        assert_eq!(in_events(&two), Some(Usage::new(2, 0, 0)));
        let torn = "data: {\"usage\":{\"prompt_tokens\":1,\n\ndata: \"x\":2}}\n\n";
        assert_eq!(in_events(torn), None, "an empty line ends the event");
    }

    #[test]
    fn an_event_may_take_several_lines_and_other_fields_are_not_read() {
        let lines = "data: {\ndata:\"usage\": {\ndata: \"input_tokens\": 5\ndata: }}\n\n";
        assert_eq!(in_events(lines), Some(Usage::new(5, 0, 0)));
        let skippable = "data: {\"a\": [1,\ndata: 2]\ndata: , \"usage\": {\"input_tokens\":5}}\n\n";
        assert_eq!(in_events(skippable), Some(Usage::new(5, 0, 0)));
        for field in [":", "event:", "dat: ", "databases:", " data:"] {
            let other = format!("{field}{{\"usage\":{{\"input_tokens\":5}}}}\n\n");
            assert_eq!(in_events(&other), None, "{field}");
        }
    }

    // Found by fuzzing: events that are not JSON had a usage in two pieces and none in one.
    #[test]
    fn a_broken_event_gives_the_same_usage_in_every_chunking() {
        let names = ["x:", "", ":\x0c", "::", ","].map(|after| format!("\"usage\"{after}"));
        // The closing quote of one name opens the next.
        for name in names.into_iter().chain(["\",\"usage\"usage\":".to_owned()]) {
            let event = format!("data: {{{name}{{\"input_tokens\":9}}}}\n\n");
            let whole = in_events(&event);
            for at in 0..=event.len() {
                let (front, back) = event.as_bytes().split_at(at);
                assert_eq!(usage_in("text/event-stream", &[front, back]), whole, "{event} at {at}");
            }
        }
    }

    #[test]
    fn absurd_numbers_are_capped() {
        let absurd = r#"{"usage":{"prompt_tokens":99999999999999999999,"completion_tokens":-1}}"#;
        assert_eq!(in_json(absurd), Some(Usage::new(1 << 40, 0, 0)));
    }

    #[test]
    fn memory_does_not_grow_with_the_answer() {
        let mut scan = scan("text/event-stream").unwrap();
        scan.push(b"data: {\"usage\":{\"x\":\"");
        for _ in 0..1_000 {
            scan.push(&[b'x'; 1_000]);
        }
        scan.push(b"\",\"prompt_tokens\":5}}\n\n");
        assert!(scan.document.capacity() <= 8 << 10);
        assert_eq!(scan.finish(), None, "no usage is that long");
    }

    #[test]
    fn a_byte_at_a_time_gives_the_same() {
        for (content_type, answer, usage) in samples() {
            let bytes: Vec<_> = answer.as_bytes().chunks(1).collect();
            assert_eq!(usage_in(content_type, &bytes), usage, "{answer}");
        }
    }

    fn cut<'a>(bytes: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.push(bytes.len());
        cuts.sort_unstable();
        let mut start = 0;
        let piece = |end| &bytes[std::mem::replace(&mut start, end)..end];
        cuts.into_iter().map(piece).collect()
    }

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<u32>().prop_map(Value::from),
            any::<u32>().prop_map(|tokens| json!({"prompt_tokens": tokens, "z": [{}]})),
            any::<u32>().prop_map(|tokens| json!({"usage": {"prompt_tokens": tokens}})),
            "(usage|response|[\"\\\\{}:]|\\PC){0,9}".prop_map(Value::from),
        ];
        let key = "(usage|response|prompt_tokens|[\"\\\\]|\\PC){1}";
        leaf.prop_recursive(4, 40, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(key, inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// The last usage in the text, found with a tree.
    fn expected(tree: &Value) -> Option<Usage> {
        let read = |usage: &Value| {
            let usage = usage.get("usage")?;
            Some(Usage::new(usage.get("prompt_tokens")?.as_u64()?, 0, 0))
        };
        // Keys of a tree are sorted: the outermost `usage` follows that of the `response`.
        read(tree).or_else(|| read(tree.get("response")?))
    }

    proptest! {
        #[test]
        fn every_chunking_gives_the_same(cuts in prop::collection::vec(any::<Index>(), 0..12)) {
            for (content_type, answer, usage) in samples() {
                let pieces = cut(answer.as_bytes(), &cuts);
                prop_assert_eq!(usage_in(content_type, &pieces), usage);
            }
        }

        #[test]
        fn a_tree_gives_the_same(
            tree in tree(),
            layout in any::<bool>(),
            cuts in prop::collection::vec(any::<Index>(), 0..6),
        ) {
            let text = if layout { format!("{tree:#}") } else { tree.to_string() };
            let pieces = cut(text.as_bytes(), &cuts);
            prop_assert_eq!(usage_in("application/json", &pieces), expected(&tree));
            let events = format!("data: {{}}\n\ndata:{tree}\n\ndata: [DONE]\n\n");
            let pieces = cut(events.as_bytes(), &cuts);
            prop_assert_eq!(usage_in("text/event-stream", &pieces), expected(&tree));
        }

        #[test]
        fn no_answer_panics_and_every_chunking_of_it_gives_the_same(
            noise in "(data: ?|\"usage\":|\"prompt_tokens\":7|[\\[\\]{}:, 1\"\\\\\n\r]){0,40}",
            cuts in prop::collection::vec(any::<Index>(), 0..12),
        ) {
            for content_type in ["application/json", "text/event-stream"] {
                let whole = usage_in(content_type, &[noise.as_bytes()]);
                prop_assert_eq!(usage_in(content_type, &cut(noise.as_bytes(), &cuts)), whole);
            }
        }
    }

    fn pretty(text: &str) -> String {
        let tree: Value = serde_json::from_str(text).unwrap();
        format!("{tree:#}")
    }

    fn chat_events(with_usage: bool) -> String {
        let mut events = String::from(": keep-alive\n\n");
        let mut push = |choices: Value, usage: Option<Value>| {
            let mut chunk = json!({"id": "chatcmpl-1", "object": "chat.completion.chunk",
                "created": 1, "model": "gpt-4o", "choices": choices});
            if with_usage {
                chunk["usage"] = usage.into();
            }
            events += &format!("data: {chunk}\n\n");
        };
        for word in ["usage", " \"usage\": {\"prompt_tokens\": 1}", " tide"] {
            push(json!([{"index": 0, "delta": {"content": word}, "finish_reason": null}]), None);
        }
        if with_usage {
            push(json!([]), Some(serde_json::from_str(CHAT_USAGE).unwrap()));
        }
        events + "data: [DONE]\n\n"
    }

    fn response_events() -> String {
        let response: Value = serde_json::from_str(RESPONSE).unwrap();
        let mut created = response.clone();
        created["usage"] = Value::Null;
        let completed = json!({"type": "response.completed", "response": response});
        let created = json!({"type": "response.created", "response": created});
        let delta = json!({"type": "response.output_text.delta", "delta": "\"usage\""});
        format!(
            "event: response.created\ndata: {created}\n\nevent: response.output_text.delta\n\
             data: {delta}\n\nevent: response.completed\ndata: {completed}\n\n"
        )
    }

    const CHAT_USAGE: &str = r#"{"completion_tokens":28,"completion_tokens_details":{"accepted_prediction_tokens":0,"audio_tokens":0,"reasoning_tokens":0,"rejected_prediction_tokens":0},"prompt_tokens":2048,"prompt_tokens_details":{"audio_tokens":0,"cached_tokens":1024},"total_tokens":2076}"#;
    const CHAT: &str = r#"{"choices":[{"content_filter_results":{"hate":{"filtered":false,"severity":"safe"}},"finish_reason":"stop","index":0,"logprobs":null,"message":{"content":"The \"usage\": {\"prompt_tokens\": 1}","refusal":null,"role":"assistant"}}],"created":1724201485,"id":"chatcmpl-9yQ","model":"gpt-4o-2024-05-13","object":"chat.completion","prompt_filter_results":[{"prompt_index":0,"content_filter_results":{}}],"system_fingerprint":"fp_abc28019ad","usage":{"completion_tokens":28,"completion_tokens_details":{"accepted_prediction_tokens":0,"audio_tokens":0,"reasoning_tokens":0,"rejected_prediction_tokens":0},"prompt_tokens":2048,"prompt_tokens_details":{"audio_tokens":0,"cached_tokens":1024},"total_tokens":2076}}"#;
    const RESPONSE: &str = r#"{"id":"resp_68af","object":"response","created_at":1741476542,"status":"completed","error":null,"instructions":"Say \\","model":"gpt-4o","output":[{"type":"message","id":"msg_68af","status":"completed","role":"assistant","content":[{"type":"output_text","text":"Usage:","annotations":[]}]}],"tools":[{"type":"function","name":"meter","parameters":{"type":"object","properties":{"usage":{"prompt_tokens":{"type":"integer"}}}}}],"usage":{"input_tokens":2048,"input_tokens_details":{"cached_tokens":1024},"output_tokens":28,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":2076},"user":null,"metadata":{}}"#;
    const EMBEDDINGS: &str = r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.0023064255,-0.009327292]}],"model":"text-embedding-3-small","usage":{"prompt_tokens":8,"total_tokens":8}}"#;
}
