//! The parts of a multipart form (RFC 7578), with the relevant fields of each head.

use std::{borrow::Cow, fmt, ops::Range};

use memchr::{memchr, memmem};

use super::content::has_prefix;

/// The parts of a form, in order.
pub struct Parts<'a> {
    body: &'a [u8],
    finder: memmem::Finder<'static>,
    /// The position after the last delimiter; `None` after the end of the form.
    at: Option<usize>,
}

/// The relevant fields of one part. Ranges are positions in the body.
#[derive(Debug)]
#[non_exhaustive]
pub struct Part {
    /// Whether the part is the field `model`.
    pub is_model: bool,
    /// The part's own header lines, without the empty one that ends them.
    pub head: Range<usize>,
    /// The content of the part.
    pub content: Range<usize>,
    /// Whether the content is plain, not in a transfer encoding.
    pub is_plain: bool,
    /// The value of the part's own `Content-Length`.
    pub(crate) length: Option<Range<usize>>,
}

/// The form is malformed or incomplete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokenForm;

impl<'a> Parts<'a> {
    /// The parts of `body`, with the boundary named by `content_type`.
    ///
    /// # Errors
    ///
    /// If it names no boundary, or `body` has no such delimiter.
    pub fn of(body: &'a [u8], content_type: &[u8]) -> Result<Self, BrokenForm> {
        let boundary = boundary(content_type).ok_or(BrokenForm)?;
        let delimiter = [b"\r\n--", &*boundary].concat();
        let finder = memmem::Finder::new(&delimiter).into_owned();
        // Without a preamble, no line break precedes the first delimiter.
        let at = match body.strip_prefix(&delimiter[2..]) {
            Some(rest) => body.len() - rest.len(),
            None => finder.find(body).ok_or(BrokenForm)? + delimiter.len(),
        };
        Ok(Self { body, finder, at: Some(at) })
    }

    fn read(&mut self, at: usize) -> Option<Option<Part>> {
        let AfterDelimiter::Part(start) = AfterDelimiter::read(self.body, at)? else {
            return Some(None);
        };
        let end = start + self.finder.find(&self.body[start..])?;
        let part = Part::read(self.body, start..end)?;
        self.at = Some(end + self.finder.needle().len());
        Some(Some(part))
    }
}

/// Ends at the end of the form, or at the first error in it.
impl Iterator for Parts<'_> {
    type Item = Result<Part, BrokenForm>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at.take()?;
        self.read(at).ok_or(BrokenForm).transpose()
    }
}

/// Shows nothing of the form.
impl fmt::Debug for Parts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("at", &self.at).finish_non_exhaustive()
    }
}

/// The boundary in a content type. For every multipart type, since a server may read any of them as a
/// form.
pub(crate) fn boundary(content_type: &[u8]) -> Option<Cow<'_, [u8]>> {
    let kind = content_type.split(|&byte| byte == b';').next()?;
    if !has_prefix(kind.trim_ascii(), b"multipart/") {
        return None;
    }
    parameter(content_type, b"boundary").filter(|boundary| !boundary.is_empty())
}

/// What follows a delimiter.
enum AfterDelimiter {
    /// A part that starts here.
    Part(usize),
    /// The end of the form; an epilogue may follow.
    End,
}

impl AfterDelimiter {
    /// `None` if the line continues: a truncated form, or content with a line that starts like the
    /// delimiter, which RFC 2046 (section 5.1.1) forbids and readers interpret differently.
    fn read(body: &[u8], at: usize) -> Option<Self> {
        let rest = &body[at..];
        if rest.starts_with(b"--") {
            return Some(Self::End);
        }
        let padding = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        rest[padding..].starts_with(b"\r\n").then_some(Self::Part(at + padding + 2))
    }
}

impl Part {
    pub(super) fn read(body: &[u8], range: Range<usize>) -> Option<Self> {
        let bytes = &body[range.clone()];
        let (head, content) = if bytes.starts_with(b"\r\n") {
            (0, 2)
        } else {
            let head = memmem::find(bytes, b"\r\n\r\n")?;
            (head, head + 4)
        };
        let mut part = Self {
            is_model: false,
            is_plain: true,
            length: None,
            head: range.start..range.start + head,
            content: range.start + content..range.end,
        };
        let mut at = range.start;
        while at < range.start + head {
            let end = line_end(&body[..range.start + head], at);
            part.read_header(body, at..end)?;
            at = end + 2;
        }
        Some(part)
    }

    fn read_header(&mut self, body: &[u8], line: Range<usize>) -> Option<()> {
        let colon = line.start + memchr(b':', &body[line.clone()])?;
        let name = body[line.start..colon].trim_ascii();
        let value = &body[colon + 1..line.end];
        if name.eq_ignore_ascii_case(b"content-disposition") {
            self.is_model = parameter(value, b"name").as_deref() == Some(b"model");
        } else if name.eq_ignore_ascii_case(b"content-length") {
            let start = line.end - value.trim_ascii_start().len();
            self.length = Some(start..start + value.trim_ascii().len());
        } else if name.eq_ignore_ascii_case(b"content-transfer-encoding") {
            let encoding = value.trim_ascii();
            self.is_plain = [&b"7bit"[..], b"8bit", b"binary"]
                .iter()
                .any(|plain| encoding.eq_ignore_ascii_case(plain));
        }
        Some(())
    }
}

/// The end of the header line at `at`, including folded lines (RFC 5322, section 2.2.3).
fn line_end(head: &[u8], at: usize) -> usize {
    let mut from = at;
    while let Some(found) = memmem::find(&head[from..], b"\r\n") {
        let end = from + found;
        from = end + 2;
        if !matches!(head.get(from), Some(b' ' | b'\t')) {
            return end;
        }
    }
    head.len()
}

/// The first parameter called `name`, quoted or not, of a value such as `form-data; name="file"`.
fn parameter<'a>(value: &'a [u8], name: &[u8]) -> Option<Cow<'a, [u8]>> {
    let mut rest = value;
    loop {
        rest = &rest[memchr(b';', rest)?..][1..];
        let end = rest.iter().position(|byte| matches!(byte, b'=' | b';'))?;
        if rest[end] == b';' {
            rest = &rest[end..];
            continue;
        }
        let key = rest[..end].trim_ascii();
        let (text, after) = parameter_value(rest[end + 1..].trim_ascii_start())?;
        if key.eq_ignore_ascii_case(name) {
            return Some(text);
        }
        rest = after;
    }
}

fn parameter_value(text: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let end = memchr(b';', text).unwrap_or(text.len());
        return Some((text[..end].trim_ascii_end().into(), &text[end..]));
    };
    let mut unescaped = Vec::new();
    let mut rest = quoted;
    loop {
        let stop = memchr::memchr2(b'"', b'\\', rest)?;
        let (plain, after) = (&rest[..stop], &rest[stop + 1..]);
        if rest[stop] == b'"' {
            if unescaped.is_empty() {
                return Some((plain.into(), after));
            }
            unescaped.extend_from_slice(plain);
            return Some((unescaped.into(), after));
        }
        unescaped.extend_from_slice(plain);
        unescaped.push(*after.first()?);
        rest = &after[1..];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn models(form: &str) -> Vec<Result<&str, BrokenForm>> {
        let parts = Parts::of(form.as_bytes(), b"multipart/form-data; boundary=XX").unwrap();
        let content = |part: Part| part.is_model.then_some(&form[part.content]);
        parts.filter_map(|part| part.map(content).transpose()).collect()
    }

    #[test]
    fn parts_are_given_up_to_the_end_of_the_form_or_what_is_broken() {
        let model = "--XX\r\nContent-Disposition: form-data; name=model\r\n\r\nwhisper\r\n";
        assert_eq!(models(&format!("{model}--XX--\r\n{model}")), [Ok("whisper")], "an epilogue");
        assert_eq!(models(&format!("{model}{model}--XX--")), [Ok("whisper"), Ok("whisper")]);
        assert_eq!(models(&format!("{model}--XXX")), [Ok("whisper"), Err(BrokenForm)]);
        assert_eq!(models(model), [Err(BrokenForm)], "it goes on");
        let kinds = [&b"multipart/form-data"[..], b"multipart/form-data; boundary=", b"text/plain"];
        assert!(kinds.iter().all(|kind| Parts::of(model.as_bytes(), kind).is_err()));
    }

    const PIECES: &[&[u8]] = &[b":", b";", b"=", b"\"", b"\\", b"name", b"model", b" ", b"\xff"];

    proptest! {
        #[test]
        fn no_parameter_panics(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..30)) {
            parameter(&pieces.concat(), b"name");
        }
    }
}
