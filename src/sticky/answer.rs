//! Finds the ids in an answer as it passes through.

use std::mem;

use super::{
    references::{ENCRYPTED_PREFIX_BYTES, MAX_ID_BYTES},
    whole_answer::WholeAnswer,
};
use crate::azure::json::{Bracket, Mark, Token, Tokenizer, mark};

/// Something in an answer that its resource holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown<'a> {
    /// The id of the answer itself, or of an item in it.
    Id(&'a [u8]),
    /// The start of content that the resource encrypted for itself.
    Encrypted(&'a [u8]),
}

/// Reads the start of an answer in any chunking: one JSON text, or events with one each, between
/// which there are no quotes or brackets (WHATWG HTML, section 9.2.6). It keeps its position in the
/// text and the current value, at most [`MAX_ID_BYTES`] bytes.
///
/// Ids count where the service itself puts them: in the outermost object, in the object `response` of
/// an event, in items (`item`, `output`, `data`, `generations`), in the `conversation` that an answer
/// belongs to, the `environment` that a tool ran in, and the `file` that an upload became. Text that
/// a caller wrote and the service repeats, metadata and tools, is elsewhere.
#[derive(Debug)]
pub(crate) struct AnswerScan {
    /// How many more bytes to read.
    left: usize,
    tokens: Tokenizer,
    /// The names of the outermost containers.
    path: [MemberName; MAX_DEPTH],
    /// The last string, if it is the key of the value that follows.
    key: Option<MemberName>,
    /// The key of the string being read; `None` if that string may be a key itself.
    value_of: Option<MemberName>,
    skips: Option<Skips>,
    text: Vec<u8>,
}

/// What is skipped, since no id is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Skips {
    String,
    /// An object or array in so many others.
    Container(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MemberName {
    Id,
    /// A list of ids.
    Ids,
    Encrypted,
    Response,
    Conversation,
    /// The environment that a tool ran in.
    Environment,
    /// The file that an upload became.
    File,
    /// A list of items.
    Items,
    Item,
    Other,
}

impl AnswerScan {
    /// Reads at most `most` bytes.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            left: most,
            tokens: Tokenizer::default(),
            path: [MemberName::Other; MAX_DEPTH],
            key: None,
            value_of: None,
            skips: None,
            text: Vec::new(),
        }
    }

    /// Whether it has read all that it may read.
    pub(crate) const fn is_over(&self) -> bool {
        self.left == 0
    }

    /// Reads the next bytes, and calls `each` for every value that ends in them. `is_last` if no others
    /// follow.
    pub(crate) fn push(&mut self, piece: &[u8], is_last: bool, mut each: impl FnMut(Shown<'_>)) {
        let piece = &piece[..piece.len().min(self.left)];
        self.left -= piece.len();
        let (read, mut known) = if self.is_between_objects() {
            whole_objects(piece, is_last || self.is_over(), &mut each)
        } else {
            (0, 0)
        };
        self.read_on(&piece[read..], |shown| match known {
            0 => each(shown),
            _ => known -= 1,
        });
    }

    fn is_between_objects(&self) -> bool {
        self.tokens.is_outermost() && self.skips.is_none() && self.key.is_none()
    }

    fn read_on(&mut self, mut rest: &[u8], mut each: impl FnMut(Shown<'_>)) {
        loop {
            let is_skipped = match self.skips {
                None => true,
                Some(Skips::String) => self.tokens.skip_string(&mut rest),
                Some(Skips::Container(depth)) => self.tokens.skip_to(depth, &mut rest),
            };
            if !is_skipped {
                return;
            }
            self.skips = None;
            match self.tokens.next(&mut rest) {
                None => return,
                Some(Token::Between(between, mark)) => self.read_between(between, mark),
                // Most names are here in one piece.
                Some(Token::Text(name, true))
                    if self.value_of.is_none() && self.text.is_empty() =>
                {
                    self.key = Some(MemberName::of(name));
                }
                Some(Token::Text(part, is_whole)) => {
                    self.keep(part);
                    if is_whole {
                        self.finish(&mut each);
                    }
                }
            }
        }
    }

    fn read_between(&mut self, between: &[u8], mark: Option<Mark>) {
        // Only a colon separates a key from its value.
        if self.key.is_some() && between.contains(&b',') {
            self.key = None;
        }
        match mark {
            None => {}
            Some(Mark::Quote) => {
                self.value_of =
                    self.key.take().or_else(|| self.is_list_of_ids().then_some(MemberName::Id));
                self.text.clear();
                if !matches!(self.value_of, None | Some(MemberName::Id | MemberName::Encrypted)) {
                    self.value_of = None;
                    self.skips = Some(Skips::String);
                }
            }
            Some(Mark::Bracket(Bracket::Close)) => self.key = None,
            Some(Mark::Bracket(bracket)) => {
                let fits = |name: &MemberName| name.is_list() == (bracket == Bracket::Array);
                let name = self.key.take().filter(fits).unwrap_or(MemberName::Other);
                let depth = self.tokens.depth();
                let is_element = bracket == Bracket::Object && self.innermost().is_list();
                if !(depth == 0 || is_element || name.may_hold_ids()) {
                    self.skips = Some(Skips::Container(depth));
                    return;
                }
                if let Some(slot) = self.path.get_mut(depth) {
                    *slot = name;
                }
            }
        }
    }

    /// Keeps the part of a string that may be needed: one byte more than the longest id, to detect a
    /// longer one.
    fn keep(&mut self, part: &[u8]) {
        let most = match self.value_of {
            Some(MemberName::Id) => MAX_ID_BYTES + 1,
            Some(_) => ENCRYPTED_PREFIX_BYTES,
            None => MAX_NAME_BYTES + 1,
        };
        let room = most.saturating_sub(self.text.len());
        self.text.extend_from_slice(&part[..part.len().min(room)]);
    }

    fn finish(&mut self, each: &mut impl FnMut(Shown<'_>)) {
        let text = mem::take(&mut self.text);
        match self.value_of.take() {
            None => self.key = Some(MemberName::of(&text)),
            Some(MemberName::Id) if self.is_id() && (1..=MAX_ID_BYTES).contains(&text.len()) => {
                each(Shown::Id(&text));
            }
            Some(MemberName::Encrypted)
                if self.is_item(self.tokens.depth()) && !text.is_empty() =>
            {
                each(Shown::Encrypted(&text));
            }
            Some(_) => {}
        }
        self.text = text;
        self.text.clear();
    }

    /// Whether it is the id of an object from the service, or in a list of ids of one.
    fn is_id(&self) -> bool {
        self.is_object(self.tokens.depth() - usize::from(self.is_list_of_ids()))
    }

    fn is_list_of_ids(&self) -> bool {
        self.innermost() == MemberName::Ids
    }

    /// The name of the container around the last token.
    fn innermost(&self) -> MemberName {
        let innermost = self.tokens.depth().checked_sub(1).and_then(|at| self.path.get(at));
        innermost.copied().unwrap_or(MemberName::Other)
    }

    fn is_object(&self, depth: usize) -> bool {
        let is_part = match depth {
            1 => true,
            2 => matches!(
                self.path[1],
                MemberName::Response | MemberName::Conversation | MemberName::File
            ),
            3 => self.path[1] == MemberName::Response && self.path[2] == MemberName::Conversation,
            _ => false,
        };
        is_part || self.is_item(depth) || self.is_environment(depth)
    }

    fn is_environment(&self, depth: usize) -> bool {
        let innermost = depth.checked_sub(1).and_then(|at| self.path.get(at));
        innermost == Some(&MemberName::Environment) && self.is_item(depth - 1)
    }

    fn is_item(&self, depth: usize) -> bool {
        match depth {
            2 => self.path[1] == MemberName::Item,
            3 => self.path[1] == MemberName::Items,
            4 => self.path[1] == MemberName::Response && self.path[2] == MemberName::Items,
            _ => false,
        }
    }
}

/// Reads the objects that are whole in `piece`, which begins between two: most answers are one, and most
/// events. Returns where the first begins that is not, and how often `each` was called for it.
fn whole_objects(piece: &[u8], is_last: bool, each: impl FnMut(Shown<'_>)) -> (usize, usize) {
    let (mut read, mut walk) = (0, WholeAnswer::new(piece, is_last, each));
    loop {
        let start = read + mark(&piece[read..]);
        if piece.get(start) != Some(&b'{') {
            return (read, 0);
        }
        match walk.read(start) {
            Some(end) => read = end,
            None => return (read, walk.found),
        }
    }
}

impl MemberName {
    pub(super) fn of(key: &[u8]) -> Self {
        match key {
            // Also the output of a batch, the thread of a run, and the container of a tool.
            b"id" | b"output_file_id" | b"error_file_id" | b"thread_id" | b"container_id" => {
                Self::Id
            }
            // The output of fine-tuning.
            b"result_files" => Self::Ids,
            b"encrypted_content" => Self::Encrypted,
            b"response" => Self::Response,
            b"conversation" => Self::Conversation,
            b"environment" => Self::Environment,
            b"file" => Self::File,
            b"output" | b"data" | b"generations" => Self::Items,
            b"item" => Self::Item,
            _ => Self::Other,
        }
    }

    /// Whether an object or a list of this name may.
    const fn may_hold_ids(self) -> bool {
        !matches!(self, Self::Id | Self::Encrypted | Self::Other)
    }

    const fn is_list(self) -> bool {
        matches!(self, Self::Ids | Self::Items)
    }
}

/// Depth of a list or object in an item of a response of an event.
const MAX_DEPTH: usize = 5;
/// The longest name considered.
const MAX_NAME_BYTES: usize = "encrypted_content".len();

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::Index};
    use serde_json::Value;

    use super::*;

    fn shown_in(pieces: &[&[u8]], most: usize) -> Vec<String> {
        let mut shown = Vec::new();
        let mut scan = AnswerScan::new(most);
        for (at, piece) in pieces.iter().enumerate() {
            scan.push(piece, at + 1 == pieces.len(), |found| {
                let (mark, text) = match found {
                    Shown::Id(text) => ("", text),
                    Shown::Encrypted(text) => ("#", text),
                };
                shown.push(format!("{mark}{}", String::from_utf8_lossy(text)));
            });
        }
        shown
    }

    fn shown(text: &str) -> Vec<String> {
        shown_in(&[text.as_bytes()], usize::MAX)
    }

    const RESPONSE: &str = r#"{"id":"resp_1","object":"response","created_at":5,"output":[
        {"id":"rs_1","type":"reasoning","summary":[{"id":"no"}],"encrypted_content":"gAAA"},
        {"id":"msg_1","content":[{"type":"output_text","text":"\"id\":\"no\""}]}],
        "tools":[{"id":"no"}],"metadata":{"id":"no"},"previous_response_id":"no"}"#;

    fn stream(end: &str) -> String {
        let response = RESPONSE.replace('\n', " ");
        [
            r#"{"type":"response.created","response":{"id":"resp_1","output":[],"x":{"id":"no"}}}"#,
            r#"{"type":"response.output_text.delta","item_id":"no","delta":"id\""}"#,
            r#"{"output_index":0,"item":{"id":"rs_1","x":{"id":"no"},"encrypted_content":"gAAA"}}"#,
            &format!(r#"{{"type":"response.completed","response":{response}}}"#),
        ]
        .map(|event| format!("event: x{end}data: {event}{end}{end}"))
        .concat()
    }

    const BATCH: &str = r#"{"id":"batch_1","input_file_id":"no","output_file_id":"file-out",
        "error_file_id":"file-err","metadata":{"output_file_id":"no"}}"#;
    const JOB: &str = r#"{"object":"video.generation.job","id":"task_1","generations":[
        {"object":"video.generation","id":"gen_1","job_id":"no"}]}"#;
    const TUNING: &str = r#"{"data":[{"id":"ftjob-1","result_files":["file-1" , "file-2"],
        "integrations":["no"]},{"id":"ftjob-2","result_files":["file-3",["no"],{"no":"no"}],
        "hyperparameters":{"result_files":["no"]}}]}"#;

    const TOOL: &str = r#"{"id":"resp_1","conversation":{"id":"conv_1","x":{"id":"no"}},"output":[
        {"type":"code_interpreter_call","id":"ci_1","container_id":"cntr_1"},
        {"type":"shell_call","id":"sh_1","environment":{"container_id":"cntr_2","x":{"id":"no"}}}]}"#;
    const IN_TOOLS: [&str; 6] = ["resp_1", "conv_1", "ci_1", "cntr_1", "sh_1", "cntr_2"];
    const UPLOAD: &str = r#"{"id":"upload_1","status":"completed",
        "file":{"id":"file-1","x":{"id":"no"}},"x":{"file":{"id":"no"}}}"#;

    fn samples() -> Vec<(String, Vec<&'static str>)> {
        let all = ["resp_1", "rs_1", "#gAAA", "msg_1"];
        let in_stream = [&["resp_1", "rs_1", "#gAAA"], &all[..]].concat();
        let list = r#"{"object":"list","first_id":"no","data":[{"id":"file-1"},
            {"x":{"id":"no"},"id":"file-2"}]}"#;
        vec![
            (RESPONSE.to_owned(), all.to_vec()),
            (RESPONSE.replace("\":", "\" :\n\t"), all.to_vec()),
            (stream("\n"), in_stream.clone()),
            (stream("\r\n"), in_stream),
            (r#"{"id":"file-1","object":"file","bytes":5}"#.to_owned(), vec!["file-1"]),
            (list.to_owned(), vec!["file-1", "file-2"]),
            (BATCH.to_owned(), vec!["batch_1", "file-out", "file-err"]),
            (
                r#"{"id":"run_1","thread_id":"thread_1","x":{"thread_id":"no"}}"#.to_owned(),
                vec!["run_1", "thread_1"],
            ),
            (JOB.to_owned(), vec!["task_1", "gen_1"]),
            (TUNING.to_owned(), vec!["ftjob-1", "file-1", "file-2", "ftjob-2", "file-3"]),
            (TOOL.to_owned(), IN_TOOLS.to_vec()),
            (format!(r#"{{"response":{}}}"#, TOOL), IN_TOOLS.to_vec()),
            (
                r#"{"item":{"id":"sh_1","environment":{"container_id":"cntr_2"}}}"#.to_owned(),
                vec!["sh_1", "cntr_2"],
            ),
            (UPLOAD.to_owned(), vec!["upload_1", "file-1"]),
        ]
    }

    #[test]
    fn ids_count_where_the_service_puts_them() {
        for (answer, expected) in samples() {
            assert_eq!(shown(&answer), expected, "{answer}");
        }
    }

    #[test]
    fn nothing_else_is_an_id() {
        for text in [
            r#"["id","resp_1"]"#,
            r#"{"a":"id","b":"resp_1"}"#,
            r#"{"id":5,"b":"resp_1"}"#,
            r#"{"id":null,"b":"resp_1"}"#,
            r#"{"id":["resp_1"]}"#,
            r#"{"id":{"b":"resp_1"}}"#,
            r#"{"id":""}"#,
            r#"{"b":"\"id\":\"resp_1\""}"#,
            r#"{"i\u0064":"resp_1"}"#,
            r#"{"idx":"resp_1","xid":"resp_1"}"#,
            r#"{"metadata":{"id":"resp_1"}}"#,
            r#"{"encrypted_content":"gA"}"#,
            r#"{"response":{"encrypted_content":"gA"}}"#,
            r#"{"conversation":{"encrypted_content":"gA"}}"#,
            r#"{"conversation":"conv_1"}"#,
            r#"{"environment":{"id":"cntr_1"}}"#,
            r#"{"environment":{"container_id":"cntr_1"}}"#,
            r#"{"file":"file-1"}"#,
            r#"{"output":{"x":{"id":"msg_1"}}}"#,
            r#"{"result_files":"file-1","y":{"result_files":["file-1"]}}"#,
            r#"{"result_files":{"x":"file-1"}}"#,
            r#"{"x":["file-1"],"y":[["file-1"]]}"#,
            "]]]]}}}",
        ] {
            assert_eq!(shown(text), [""; 0], "{text}");
        }
        let long = format!(r#"{{"id":"{}"}}"#, "x".repeat(MAX_ID_BYTES + 1));
        assert_eq!(shown(&long), [""; 0]);
    }

    /// An answer with any member anywhere.
    fn json() -> impl Strategy<Value = Value> {
        let names = [
            "id",
            "thread_id",
            "result_files",
            "encrypted_content",
            "response",
            "conversation",
            "environment",
            "file",
            "output",
            "data",
            "item",
            "x",
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            Just(Value::from(-1.5e3)),
            "(a|\"|\\\\|\\PC){0,3}".prop_map(Value::from),
        ];
        leaf.prop_recursive(7, 80, 5, move |inner| {
            let member = (prop::sample::select(names.to_vec()), inner.clone());
            prop_oneof![
                1 => prop::collection::vec(inner, 0..4).prop_map(Value::from),
                3 => prop::collection::vec(member, 0..5).prop_map(Value::from_iter),
            ]
        })
    }

    #[test]
    fn of_what_is_encrypted_the_beginning_is_kept() {
        let encrypted = "g".repeat(10_000);
        let text = format!(r#"{{"output":[{{"encrypted_content":"{encrypted}"}}]}}"#);
        assert_eq!(shown(&text), [format!("#{}", "g".repeat(ENCRYPTED_PREFIX_BYTES))]);
    }

    #[test]
    fn what_follows_many_lists_is_not_searched_after_each() {
        let count = 50_000;
        let members = r#""output":[],"#.repeat(count);
        assert_eq!(shown(&format!(r#"{{{members}"id":"resp_1"}}"#)), ["resp_1"]);
        let events = r#"{"output":[]} "#.repeat(count);
        assert_eq!(shown(&format!(r#"{events}{{"id":"resp_1"}}"#)), ["resp_1"]);
    }

    #[test]
    fn it_reads_no_further_than_it_may() {
        let text = r#"{"id":"resp_1","output":[{"id":"msg_1"}]}"#;
        let within = text.find("msg").expect("it is there");
        assert_eq!(shown_in(&[text.as_bytes()], within), ["resp_1"]);
        let mut scan = AnswerScan::new(within);
        scan.push(text.as_bytes(), false, |_| {});
        assert!(scan.is_over());
    }

    proptest! {
        #[test]
        fn any_pieces_show_the_same(cuts in prop::collection::vec(any::<Index>(), 0..6)) {
            for (answer, expected) in samples() {
                let bytes = answer.as_bytes();
                let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
                ends.sort_unstable();
                ends.push(bytes.len());
                let mut from = 0;
                let pieces: Vec<_> =
                    ends.into_iter().map(|end| &bytes[mem::replace(&mut from, end)..end]).collect();
                prop_assert_eq!(shown_in(&pieces, usize::MAX), expected.clone());
            }
        }

        #[test]
        fn an_answer_shows_the_same_in_one_piece_as_byte_by_byte(answer in json()) {
            for text in [answer.to_string(), format!("{answer:#}{answer}")] {
                let bytes: Vec<_> = text.as_bytes().chunks(1).collect();
                prop_assert_eq!(shown(&text), shown_in(&bytes, usize::MAX));
            }
        }

        #[test]
        fn noise_shows_the_same_in_one_piece_as_byte_by_byte(
            noise in prop::collection::vec(any::<u8>(), 0..100),
            pieces in "(\"(id|output|item|response|conversation|data|result_files|thread_id)\":?|\\\\|[\\[\\]{}:, 1\"]){0,40}",
        ) {
            let noise = [&noise, pieces.as_bytes()].concat();
            let whole = shown_in(&[&noise], usize::MAX);
            prop_assert_eq!(&whole, &shown_in(&[&noise, b""], usize::MAX));
            let bytes: Vec<_> = noise.chunks(1).collect();
            prop_assert_eq!(whole, shown_in(&bytes, usize::MAX));
        }
    }
}
