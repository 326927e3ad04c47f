//! Finds the parts named `model` of a form that arrives in pieces.

use memchr::memmem::{self, Finder};

use super::{Models, Span};
use crate::azure::multipart::{Part, boundary};

/// A position in a form (RFC 7578). If the form is broken, it continues at the next delimiter.
#[derive(Clone)]
pub(crate) struct FormReader {
    at: FormPosition,
    delimiter: Finder<'static>,
    /// The last bytes read, which may start a delimiter.
    tail: Vec<u8>,
    /// The head of a part, held back until it is complete.
    pub(super) held: Vec<u8>,
    pub(super) models: Models,
    /// Whether the two dashes that end the form are held back until they are complete.
    pub(super) holds_end: bool,
}

/// What comes next.
#[derive(Clone, Copy)]
enum FormPosition {
    /// The text before a delimiter: a part's content, or a preamble.
    Content { is_model: bool },
    /// The rest of a delimiter's line, and the bytes read of it.
    Line(Line),
    /// The head of a part.
    Head,
    /// Nothing relevant: an epilogue.
    End,
}

#[derive(Clone, Copy)]
enum Line {
    Start,
    Dash,
    Padding,
    Return,
}

impl FormReader {
    /// `None` without a boundary.
    pub(super) fn of(content_type: &[u8]) -> Option<Self> {
        let delimiter = [b"\r\n--", &*boundary(content_type)?].concat();
        Some(Self {
            at: FormPosition::Content { is_model: false },
            delimiter: Finder::new(&delimiter).into_owned(),
            // Without a preamble, no line break precedes the first delimiter.
            tail: b"\r\n".to_vec(),
            held: Vec::new(),
            models: Models::default(),
            holds_end: false,
        })
    }

    /// Whether no model can follow.
    pub(super) const fn is_done(&self) -> bool {
        matches!(self.at, FormPosition::End)
    }

    pub(super) fn read(&mut self, piece: &[u8], emit: &mut impl FnMut(Span<'_>)) {
        let mut at = 0;
        while at < piece.len() {
            let start = at;
            match self.at {
                FormPosition::End => {
                    at = piece.len();
                    emit(Span::Piece(start..at));
                }
                FormPosition::Content { is_model } => {
                    let end = self.delimiter_end(&piece[at..]);
                    at = end.map_or(piece.len(), |end| at + end);
                    if !is_model {
                        emit(Span::Piece(start..at));
                    } else if end.is_some() {
                        self.models.ended += 1;
                        emit(Span::Text(self.delimiter.needle()));
                    }
                    if end.is_some() {
                        self.at = FormPosition::Line(Line::Start);
                    }
                }
                FormPosition::Line(line) => {
                    match (line, piece[at]) {
                        (Line::Start, b'-') if self.holds_end => {
                            self.at = FormPosition::Line(Line::Dash);
                            at += 1;
                            continue;
                        }
                        (Line::Dash, b'-') if self.holds_end => {
                            if self.models.begun == 0 {
                                emit(Span::End { is_first: true });
                            }
                            emit(Span::Text(b"--"));
                            self.at = FormPosition::End;
                            at += 1;
                            continue;
                        }
                        (Line::Start, b'-') => self.at = FormPosition::Line(Line::Dash),
                        (Line::Dash, b'-') => self.at = FormPosition::End,
                        (Line::Start | Line::Padding, b' ' | b'\t') => {
                            self.at = FormPosition::Line(Line::Padding);
                        }
                        (Line::Start | Line::Padding, b'\r') => {
                            self.at = FormPosition::Line(Line::Return)
                        }
                        (Line::Return, b'\n') => self.at = FormPosition::Head,
                        // It only starts like a delimiter.
                        _ => {
                            if self.holds_end && matches!(line, Line::Dash) {
                                emit(Span::Text(b"-"));
                            }
                            self.at = FormPosition::Content { is_model: false };
                            continue;
                        }
                    }
                    at += 1;
                    emit(Span::Piece(start..at));
                }
                FormPosition::Head => at += self.read_head(&piece[at..], emit),
            }
        }
    }

    /// The end of the next delimiter, if it is in `rest`. Otherwise records the bytes that may start
    /// one.
    fn delimiter_end(&mut self, rest: &[u8]) -> Option<usize> {
        let (length, begun) = (self.delimiter.needle().len(), self.tail.len());
        self.tail.extend_from_slice(&rest[..rest.len().min(length - 1)]);
        let across = self.delimiter.find(&self.tail).map(|at| at + length - begun);
        let found = across.or_else(|| self.delimiter.find(rest).map(|at| at + length));
        if found.is_some() {
            self.tail.clear();
        } else {
            if rest.len() >= length {
                self.tail.clear();
                self.tail.extend_from_slice(&rest[rest.len() - (length - 1)..]);
            }
            let surplus = self.tail.len().saturating_sub(length - 1);
            self.tail.drain(..surplus);
        }
        found
    }

    /// Continues reading a part's head; returns how much of `rest` belongs to it.
    fn read_head(&mut self, rest: &[u8], emit: &mut impl FnMut(Span<'_>)) -> usize {
        let known = self.held.len();
        self.held.extend_from_slice(&rest[..rest.len().min(MAX_PART_HEAD_BYTES - known)]);
        let whole = head_length(&self.held);
        let delimiter =
            self.delimiter.find(&self.held).map(|at| at + self.delimiter.needle().len());
        let (end, next) = match (whole, delimiter) {
            (Some(end), delimiter) if delimiter.is_none_or(|delimiter| end < delimiter) => {
                self.held.truncate(end);
                // The delimiter after empty content may start with the end of the head.
                self.tail = b"\r\n".to_vec();
                (end, FormPosition::Content { is_model: self.pass_head(emit) })
            }
            (_, Some(end)) => (end, FormPosition::Line(Line::Start)),
            (_, None) if self.held.len() == MAX_PART_HEAD_BYTES => {
                self.tail.clear();
                (MAX_PART_HEAD_BYTES, FormPosition::Content { is_model: false })
            }
            (_, None) => return rest.len(),
        };
        if !matches!(next, FormPosition::Content { is_model: true }) {
            emit(Span::Text(&self.held[..end]));
        }
        self.held.clear();
        self.at = next;
        end - known
    }

    /// Passes the head of a part on, followed by the name if that is a model; returns whether it is.
    fn pass_head(&mut self, emit: &mut impl FnMut(Span<'_>)) -> bool {
        let head = &*self.held;
        let Some(part) = Part::read(head, 0..head.len()).filter(|part| part.is_model) else {
            return false;
        };
        match part.length {
            Some(digits) => {
                emit(Span::Text(&head[..digits.start]));
                emit(Span::NameLength);
                emit(Span::Text(&head[digits.end..]));
            }
            None => emit(Span::Text(head)),
        }
        emit(Span::Name);
        self.models.begun += 1;
        true
    }
}

/// The length of a part's head with the empty line that ends it, if complete.
fn head_length(text: &[u8]) -> Option<usize> {
    if text.starts_with(b"\r\n") { Some(2) } else { Some(memmem::find(text, b"\r\n\r\n")? + 4) }
}

/// The longest head of one part, in bytes: those of forms have three lines.
const MAX_PART_HEAD_BYTES: usize = 16 << 10;
