//! Finds and renames the `model` of a body that arrives in pieces.

mod form;
mod json;

use std::{fmt, ops::Range};

use bytes::Bytes;
use http::HeaderValue;

use self::{form::FormReader, json::JsonReader};
use super::{ContentKind, multipart::boundary};

/// Renames the `model` of a body that is not in memory, as it passes: every top-level one of a JSON
/// object, and every form part of that name. All other bytes stay unchanged.
///
/// A layer passes it to [`TryCloneBody::rename_model`](crate::TryCloneBody::rename_model).
#[derive(Clone)]
pub struct ModelRename {
    reader: ModelReader,
    /// As written in the body: a JSON string with its quotes, or the content of a form part.
    name: Bytes,
    /// Added with the name where a body ends without naming a model; `None` if the model may be named
    /// elsewhere.
    missing: Option<Missing>,
}

/// How a model is added to a body: the text before and after its name.
#[derive(Clone)]
struct Missing {
    before: Bytes,
    behind: Bytes,
}

impl ModelRename {
    /// For a body of this `content_type`; the name is given as a JSON string and as plain text.
    pub(crate) fn new(content_type: Option<&HeaderValue>, json: &[u8], plain: &str) -> Self {
        let reader = ModelReader::of(content_type);
        let name = match reader {
            ModelReader::Json(_) => json,
            ModelReader::Form(_) | ModelReader::Nothing => plain.as_bytes(),
        };
        Self { reader, name: Bytes::copy_from_slice(name), missing: None }
    }

    /// Also adds the model to a body that does not name one: the original path does, and the new one
    /// does not.
    pub(crate) fn adding(mut self, content_type: Option<&HeaderValue>) -> Self {
        self.missing = match &mut self.reader {
            ModelReader::Json(_) => {
                Some(Missing { before: Bytes::from_static(br#""model":"#), behind: Bytes::new() })
            }
            ModelReader::Form(form) => {
                form.holds_end = true;
                let delimiter = content_type.and_then(|it| boundary(it.as_bytes()));
                delimiter.map(|delimiter| Missing {
                    before: Bytes::from_static(MODEL_PART),
                    behind: [b"\r\n--", &*delimiter].concat().into(),
                })
            }
            ModelReader::Nothing => None,
        };
        self
    }

    /// Whether the body may become longer by an amount unknown before its end.
    pub(crate) const fn may_add(&self) -> bool {
        self.missing.is_some()
    }

    /// Passes the rewritten next `piece` of the body to `out`, without copying unchanged parts.
    pub fn push(&mut self, piece: &Bytes, mut out: impl FnMut(Bytes)) {
        let Self { reader, name, missing } = self;
        reader.read(piece, &mut |span| match span {
            Span::Piece(range) if range.is_empty() => {}
            Span::Piece(range) => out(piece.slice(range)),
            Span::Text(text) => out(Bytes::copy_from_slice(text)),
            Span::Name => out(name.clone()),
            Span::NameLength => out(name.len().to_string().into()),
            Span::End { is_first } => {
                if let Some(Missing { before, behind }) = missing {
                    if !is_first {
                        out(Bytes::from_static(b","));
                    }
                    out(before.clone());
                    out(name.clone());
                    if !behind.is_empty() {
                        out(behind.clone());
                    }
                }
            }
        });
    }

    /// Passes to `out` what was held back when the body has ended.
    pub fn finish(&mut self, out: impl FnOnce(Bytes)) {
        if let ModelReader::Form(form) = &mut self.reader
            && !form.held.is_empty()
        {
            out(std::mem::take(&mut form.held).into());
        }
    }

    /// The number of bytes held back.
    pub(crate) const fn held(&self) -> usize {
        match &self.reader {
            ModelReader::Form(form) => form.held.len(),
            ModelReader::Json(_) | ModelReader::Nothing => 0,
        }
    }

    /// The number of models found so far.
    pub(crate) const fn begun(&self) -> usize {
        self.reader.models().begun
    }

    /// Whether at least one was found, and all of those have passed.
    pub(crate) const fn has_renamed(&self) -> bool {
        let Models { begun, ended } = self.reader.models();
        ended > 0 && begun == ended
    }

    /// Whether no model can follow.
    pub(crate) const fn is_done(&self) -> bool {
        self.reader.is_done()
    }
}

/// Shows nothing of the body.
impl fmt::Debug for ModelRename {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelRename").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Reads a body piece by piece, with the memory of one form part's head.
#[derive(Clone)]
pub(crate) enum ModelReader {
    Json(JsonReader),
    Form(Box<FormReader>),
    /// A form without a boundary.
    Nothing,
}

/// The head of a part with a model, starting at the line of its delimiter.
pub(crate) const MODEL_PART: &[u8] = b"\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n";

/// The number of models that a body has named so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Models {
    pub(crate) begun: usize,
    pub(crate) ended: usize,
}

/// The parts of a rewritten piece, in order.
enum Span<'a> {
    /// This range of the piece, unchanged.
    Piece(Range<usize>),
    /// Bytes held back from earlier pieces.
    Text(&'a [u8]),
    /// The new name, in place of a model.
    Name,
    /// The length of the name, in digits.
    NameLength,
    /// The body ends here without having named a model. `is_first`: in JSON, no comma is
    /// needed; a form part needs no separator.
    End { is_first: bool },
}

impl ModelReader {
    /// A reader of bodies with this content type. Anything but a form is treated as JSON.
    pub(crate) fn of(content_type: Option<&HeaderValue>) -> Self {
        match (ContentKind::named(content_type), content_type) {
            (ContentKind::Multipart, Some(form)) => match FormReader::of(form.as_bytes()) {
                Some(form) => Self::Form(Box::new(form)),
                None => Self::Nothing,
            },
            _ => Self::Json(JsonReader::default()),
        }
    }

    /// Reads the next piece to find models in it.
    pub(crate) fn find(&mut self, piece: &[u8]) {
        self.read(piece, &mut |_| {});
    }

    /// Whether the rest makes no difference to a reader that needs one model: it has passed, or none
    /// can follow.
    pub(crate) const fn knows(&self) -> bool {
        self.is_done() || self.models().ended > 0
    }

    const fn is_done(&self) -> bool {
        match self {
            Self::Json(json) => json.is_done(),
            Self::Form(form) => form.is_done(),
            Self::Nothing => true,
        }
    }

    fn read(&mut self, piece: &[u8], emit: &mut impl FnMut(Span<'_>)) {
        match self {
            Self::Json(json) => json.read(piece, emit),
            Self::Form(form) => form.read(piece, emit),
            Self::Nothing => emit(Span::Piece(0..piece.len())),
        }
    }

    const fn models(&self) -> Models {
        match self {
            Self::Json(json) => json.models,
            Self::Form(form) => form.models,
            Self::Nothing => Models { begun: 0, ended: 0 },
        }
    }
}

#[cfg(test)]
mod tests;
