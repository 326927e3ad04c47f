//! The references of a request, compared with a walk through serde_json's tree.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oracle::tree::Tree;
use tower_spillover::fuzzing;

fuzz_target!(|body: &[u8]| {
    let mut found = Vec::new();
    let stored = fuzzing::references(body, |kind, text| found.push((kind, text)));
    for (kind, text) in &found {
        assert!(*kind == "sealed" || text.len() <= LONGEST_ID);
    }
    fuzzing::cache_key(body);
    // Names and ids are compared as written.
    if body.contains(&b'\\') {
        return;
    }
    let Some(Tree::Object(members)) = Tree::parse(body) else { return };
    let mut walk = Walk::default();
    members.iter().for_each(|(key, value)| walk.top(key, value));
    assert_eq!(found.len(), walk.found.len(), "{:?}", walk.found);
    for (found, expected) in found.iter().zip(&walk.found) {
        assert_eq!(*found, (expected.0, expected.1.as_bytes()));
    }
    assert_eq!(stored, walk.stored);
});

#[derive(Default)]
struct Walk<'a> {
    found: Vec<(&'static str, &'a str)>,
    stored: Option<bool>,
}

impl<'a> Walk<'a> {
    fn top(&mut self, key: &str, value: &'a Tree) {
        match key {
            "previous_response_id"
            | "assistant_id"
            | "thread_id"
            | "input_file_id"
            | "training_file"
            | "validation_file" => self.id(value),
            "conversation" | "video" => match value {
                Tree::Object(_) => self.id_of(value),
                value => self.id(value),
            },
            "prompt" => {
                let Tree::Object(members) = value else { return };
                for (key, value) in members {
                    match (key.as_str(), value) {
                        ("id", value) => self.id(value),
                        ("variables", Tree::Object(all)) => {
                            all.iter().for_each(|(_, value)| self.inner("", value, 6));
                        }
                        _ => {}
                    }
                }
            }
            "data_source" => {
                if let Tree::Object(members) = value {
                    for (key, value) in members {
                        match (key.as_str(), value) {
                            ("source", Tree::Object(_)) => self.id_of(value),
                            (key, value) => self.inner(key, value, 6),
                        }
                    }
                }
            }
            "input" | "items" => {
                if let Tree::Array(items) = value {
                    items.iter().for_each(|item| self.item(item));
                }
            }
            "store" => {
                if let Tree::Bool(stored) = value {
                    self.stored = Some(*stored);
                }
            }
            "messages"
            | "additional_messages"
            | "thread"
            | "tools"
            | "tool_resources"
            | "attachments"
            | "file_id"
            | "file_ids"
            | "files"
            | "images"
            | "input_reference"
            | "mask"
            | "skills"
            | "vector_store_ids"
            | "container" => self.inner(key, value, 6),
            _ => {}
        }
    }

    fn item(&mut self, item: &'a Tree) {
        let Tree::Object(members) = item else { return };
        let (mut id, mut kind, mut is_sealed) = (None, "", false);
        for (key, value) in members {
            let text = match value {
                Tree::Text(text) => Some(text.as_str()),
                _ => None,
            };
            match (key.as_str(), text) {
                ("id", text) => id = text,
                ("type", text) => kind = text.unwrap_or_default(),
                ("encrypted_content", Some(text)) => {
                    is_sealed = true;
                    self.found.push(("sealed", text));
                }
                ("content" | "output", _) => self.inner(key, value, 6),
                ("container_id", _) => self.recorded(value),
                ("environment", _) => self.record(value),
                _ => {}
            }
        }
        if let Some(id) = id.filter(|id| id.len() <= LONGEST_ID) {
            let is_left = kind == "item_reference" || (id.starts_with("rs_") && !is_sealed);
            self.found.push((if is_left { "id" } else { "item" }, id));
        }
    }

    fn inner(&mut self, key: &str, value: &'a Tree, depth: u32) {
        match value {
            _ if WORDS.contains(&key) => {}
            Tree::Text(_) if IDS.contains(&key) => self.id(value),
            Tree::Array(records) if key == "annotations" => {
                records.iter().for_each(|record| self.record(record));
            }
            Tree::Object(members) if depth > 0 => {
                members.iter().for_each(|(key, value)| self.inner(key, value, depth - 1));
            }
            Tree::Array(values) if depth > 0 => {
                values.iter().for_each(|value| self.inner(key, value, depth - 1));
            }
            _ => {}
        }
    }

    fn record(&mut self, value: &'a Tree) {
        let Tree::Object(members) = value else { return };
        for (key, value) in members {
            if ["container_id", "file_id"].contains(&key.as_str()) {
                self.recorded(value);
            }
        }
    }

    fn recorded(&mut self, value: &'a Tree) {
        if let Tree::Text(id) = value
            && id.len() <= LONGEST_ID
        {
            self.found.push(("item", id));
        }
    }

    fn id_of(&mut self, value: &'a Tree) {
        let Tree::Object(members) = value else { return };
        members.iter().filter(|(key, _)| key == "id").for_each(|(_, id)| self.id(id));
    }

    fn id(&mut self, value: &'a Tree) {
        if let Tree::Text(id) = value
            && (1..=LONGEST_ID).contains(&id.len())
        {
            self.found.push(("id", id));
        }
    }
}

/// Members whose content the caller chooses.
const WORDS: [&str; 6] =
    ["metadata", "attributes", "parameters", "schema", "json_schema", "arguments"];
const IDS: [&str; 6] =
    ["file_id", "file_ids", "vector_store_ids", "container", "container_id", "skill_id"];
/// Checked at any place: the service accepts a list.
const LONGEST_ID: usize = 256;
