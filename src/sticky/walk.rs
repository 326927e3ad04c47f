//! Walks to the places where the API has references in a request's body.

use super::references::{MAX_ID_BYTES, Reference};
use crate::azure::{fields::Field, json::Scan};

/// A walk through a body that calls `each` for every reference.
pub(super) struct Walk<'a, F> {
    content: &'a [u8],
    each: F,
    /// Whether the answer will be stored, if the body says so.
    pub(super) stored: Option<bool>,
}

impl<'a, F: FnMut(Reference<'a>)> Walk<'a, F> {
    pub(super) const fn new(content: &'a [u8], each: F) -> Self {
        Self { content, each, stored: None }
    }

    /// Reads a member of the body.
    pub(super) fn read(&mut self, field: Field, key: &'a [u8], scan: &mut Scan<'a>) -> Option<()> {
        match field {
            Field::Id => self.id(scan),
            Field::Conversation => match scan.peek()? {
                b'{' => self.id_in_object(scan),
                _ => self.id(scan),
            },
            Field::Prompt => self.stored_prompt(scan),
            Field::DataSource => self.data_source(scan),
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
            Field::Messages | Field::Tools | Field::Holder => self.inner(key, scan, MAX_DEPTH),
            _ => scan.skip().map(drop),
        }
    }

    /// The input of a response, or the items of a conversation: a text, or items.
    fn items(&mut self, scan: &mut Scan<'a>) -> Option<()> {
        if scan.peek()? != b'[' {
            return scan.skip().map(drop);
        }
        scan.array(|scan| match scan.peek()? {
            b'{' => self.item(scan),
            _ => scan.skip().map(drop),
        })
    }

    /// A stored prompt with its variables: texts, images and files. A prompt that is a text or a list
    /// of texts is the caller's own.
    fn stored_prompt(&mut self, scan: &mut Scan<'a>) -> Option<()> {
        if scan.peek()? != b'{' {
            return scan.skip().map(drop);
        }
        self.object(scan, |walk, key, scan| match (key, scan.peek()?) {
            (b"id", _) => walk.id(scan),
            // Names of variables are the caller's, whatever they look like.
            (b"variables", b'{') => {
                walk.object(scan, |walk, _, scan| walk.inner(b"", scan, MAX_DEPTH))
            }
            _ => scan.skip().map(drop),
        })
    }

    /// The data of an evaluation: a file has its id in `source`; anything else there is content.
    fn data_source(&mut self, scan: &mut Scan<'a>) -> Option<()> {
        if scan.peek()? != b'{' {
            return scan.skip().map(drop);
        }
        self.object(scan, |walk, key, scan| match (key, scan.peek()?) {
            (b"source", b'{') => walk.id_in_object(scan),
            _ => walk.inner(key, scan, MAX_DEPTH),
        })
    }

    fn item(&mut self, scan: &mut Scan<'a>) -> Option<()> {
        let (mut id, mut kind, mut is_encrypted) = (None, &b""[..], false);
        self.object(scan, |walk, key, scan| {
            match key {
                b"id" => id = walk.text(scan)?,
                b"type" => kind = walk.text(scan)?.unwrap_or_default(),
                b"encrypted_content" => {
                    if let Some(text) = walk.text(scan)? {
                        is_encrypted = true;
                        (walk.each)(Reference::Encrypted(text));
                    }
                }
                b"content" | b"output" => walk.inner(key, scan, MAX_DEPTH)?,
                // The container that a tool used: a record, which pins nothing.
                b"container_id" => walk.recorded(scan)?,
                b"environment" if scan.peek()? == b'{' => walk.record(scan)?,
                _ => {
                    scan.skip()?;
                }
            }
            Some(())
        })?;
        if let Some(id) = id.filter(|id| id.len() <= MAX_ID_BYTES) {
            // Reasoning without encrypted content stayed with the resource.
            let needed = kind == b"item_reference" || (id.starts_with(b"rs_") && !is_encrypted);
            (self.each)(if needed { Reference::Id(id) } else { Reference::Item(id) });
        }
        Some(())
    }

    /// Files and the like inside messages, tools and attachments.
    fn inner(&mut self, key: &'a [u8], scan: &mut Scan<'a>, depth: u32) -> Option<()> {
        match (scan.peek()?, key) {
            // The caller's own text, whatever it looks like.
            (
                _,
                b"metadata" | b"attributes" | b"parameters" | b"schema" | b"json_schema"
                | b"arguments",
            ) => scan.skip().map(drop),
            (
                b'"',
                b"file_id" | b"file_ids" | b"vector_store_ids" | b"container" | b"container_id"
                | b"skill_id",
            ) => self.id(scan),
            // The source of an earlier answer's quote: a record, which pins nothing.
            (b'[', b"annotations") => scan.array(|scan| match scan.peek()? {
                b'{' => self.record(scan),
                _ => scan.skip().map(drop),
            }),
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

    fn id_in_object(&mut self, scan: &mut Scan<'a>) -> Option<()> {
        self.object(scan, |walk, key, scan| match key {
            b"id" => walk.id(scan),
            _ => scan.skip().map(drop),
        })
    }

    fn record(&mut self, scan: &mut Scan<'a>) -> Option<()> {
        self.object(scan, |walk, key, scan| match key {
            b"container_id" | b"file_id" => walk.recorded(scan),
            _ => scan.skip().map(drop),
        })
    }

    fn recorded(&mut self, scan: &mut Scan<'a>) -> Option<()> {
        if let Some(id) = self.text(scan)?.filter(|id| id.len() <= MAX_ID_BYTES) {
            (self.each)(Reference::Item(id));
        }
        Some(())
    }

    fn id(&mut self, scan: &mut Scan<'a>) -> Option<()> {
        if let Some(id) = self.text(scan)?.filter(|id| (1..=MAX_ID_BYTES).contains(&id.len())) {
            (self.each)(Reference::Id(id));
        }
        Some(())
    }

    /// Skips a value, and returns it as written if it is a string.
    fn text(&mut self, scan: &mut Scan<'a>) -> Option<Option<&'a [u8]>> {
        let value = &self.content[scan.skip()?];
        Some(value.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")))
    }
}

/// Levels of nesting that are read. A file in a tool's container is at level 4, counting a list of
/// files; a skill is at 5.
const MAX_DEPTH: u32 = 6;
