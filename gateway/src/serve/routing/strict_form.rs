//! Reads only forms that every parser interprets in the same way.
//!
//! Servers differ in how they treat repeated fields, bare line feeds, or a preamble. If a form
//! decides what a client may do, only one without any of these is accepted.

use std::ops::Range;

use memchr::memmem;
use tower_spillover::azure::Parts;

/// A field of a form.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Field<'a> {
    pub(super) name: String,
    pub(super) is_file: bool,
    pub(super) content: &'a [u8],
}

impl Field<'_> {
    /// Whether it is the reference to an object.
    pub(super) fn names_id(&self) -> bool {
        !self.is_file && self.name.to_ascii_lowercase().contains("id")
    }

    /// The id of the object that it refers to.
    pub(super) fn id(&self) -> Option<&str> {
        let id = std::str::from_utf8(self.content).ok().filter(|_| self.names_id());
        id.map(str::trim)
    }
}

/// The fields of a form, in order; `None` if parsers could disagree about it.
pub(super) fn fields<'a>(content_type: &[u8], body: &'a [u8]) -> Option<Vec<Field<'a>>> {
    let (kind, parameters) = value(std::str::from_utf8(content_type).ok()?)?;
    let [(name, boundary)] = &*parameters else { return None };
    if !kind.eq_ignore_ascii_case("multipart/form-data") || !name.eq_ignore_ascii_case("boundary") {
        return None;
    }
    let delimiter = [b"--", boundary.as_bytes()].concat();
    let parts = Parts::of(body, content_type).ok()?.collect::<Result<Vec<_>, _>>().ok()?;
    let end = parts.last().map_or(0, |part| part.content.end + 2);
    let rest = body.get(end..)?.strip_prefix(&*delimiter)?.strip_prefix(b"--")?;
    // No preamble, no epilogue, and no delimiters that another parser would find inside a part.
    let is_alone = body.starts_with(&delimiter)
        && rest.trim_ascii().is_empty()
        && memmem::find_iter(body, &delimiter).count() == parts.len() + 1;
    if !is_alone {
        return None;
    }
    parts.into_iter().map(|part| field(body, part.head, part.content)).collect()
}

fn field(body: &[u8], head: Range<usize>, content: Range<usize>) -> Option<Field<'_>> {
    let head = std::str::from_utf8(&body[head]).ok()?;
    let (mut disposition, mut kind) = (None, None);
    for line in head.split("\r\n") {
        // No folded headers, and no other line endings.
        if line.starts_with([' ', '\t']) || line.contains(|c: char| c.is_control() && c != '\t') {
            return None;
        }
        let (name, text) = line.split_once(':')?;
        let slot = match &*name.to_ascii_lowercase() {
            "content-disposition" => &mut disposition,
            "content-type" => &mut kind,
            "content-length" => continue,
            "content-transfer-encoding" => match &*text.trim().to_ascii_lowercase() {
                "7bit" | "8bit" | "binary" => continue,
                _ => return None,
            },
            _ if name.trim() != name => return None,
            _ => continue,
        };
        if slot.replace(value(text)?).is_some() {
            return None;
        }
    }
    if let Some((kind, parameters)) = &kind
        && (is_prefixed(kind, "multipart/") || !parameters.iter().all(is_utf8))
    {
        return None;
    }
    let (kind, parameters) =
        disposition.filter(|(kind, _)| kind.eq_ignore_ascii_case("form-data"))?;
    debug_assert!(!kind.is_empty());
    let (mut name, mut is_file) = (None, false);
    for (key, text) in parameters {
        match &*key.to_ascii_lowercase() {
            "name" if name.is_none() => name = Some(text),
            "filename" | "filename*" => is_file = true,
            _ => return None,
        }
    }
    // It changes the encoding of the other fields.
    let name = name.filter(|name| name != "_charset_")?;
    Some(Field { name, is_file, content: &body[content] })
}

/// A value and its parameters: `form-data; name="file"`.
fn value(text: &str) -> Option<(&str, Vec<(&str, String)>)> {
    let (word, mut rest) = text.split_at(text.find(';').unwrap_or(text.len()));
    let mut parameters = Vec::new();
    while let Some(parameter) = rest.strip_prefix(';') {
        if parameter.trim().is_empty() {
            break;
        }
        let (key, after) = parameter.split_once('=')?;
        let (text, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted_text(quoted)?,
            None => {
                let end = after.find(';').unwrap_or(after.len());
                let token = after[..end].trim_end();
                let is_plain =
                    |byte: u8| byte.is_ascii_graphic() && !b"\"\\()<>@,;:/[]?=".contains(&byte);
                if token.is_empty() || !token.bytes().all(is_plain) && !key.trim().ends_with('*') {
                    return None;
                }
                (token.to_owned(), &after[end..])
            }
        };
        parameters.push((key.trim(), text));
        rest = after.trim_start();
    }
    rest.trim_start_matches(';').trim().is_empty().then(|| (word.trim(), parameters))
}

/// The text before the closing quote, and the rest. Browsers write a quote as `%22`, others escape
/// it with a backslash, which some servers take for part of a path.
fn quoted_text(quoted: &str) -> Option<(String, &str)> {
    let (text, after) = quoted.split_once('"')?;
    (!text.contains('\\')).then(|| (text.to_owned(), after))
}

fn is_utf8((key, text): &(&str, String)) -> bool {
    let is_charset = key.eq_ignore_ascii_case("charset");
    !is_charset || ["utf-8", "us-ascii"].iter().any(|plain| text.eq_ignore_ascii_case(plain))
}

fn is_prefixed(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: &str = "multipart/form-data; boundary=XX";

    fn read(kind: &str, form: &str) -> Option<Vec<(String, bool, String)>> {
        let fields = fields(kind.as_bytes(), form.as_bytes())?;
        let text = |content: &[u8]| String::from_utf8_lossy(content).into_owned();
        Some(fields.into_iter().map(|it| (it.name, it.is_file, text(it.content))).collect())
    }

    fn part(head: &str) -> String {
        format!("--XX\r\n{head}\r\n\r\ndear\r\n--XX--\r\n")
    }

    #[test]
    fn what_clients_send_is_read() {
        for head in [
            "Content-Disposition: form-data; name=\"model\"",
            "content-disposition:form-data;name=model",
            "Content-Type: text/plain; charset=UTF-8\r\nContent-Disposition: form-data; name=\"model\"",
        ] {
            let model = ("model".to_owned(), false, "dear".to_owned());
            assert_eq!(read(KIND, &part(head)), Some(vec![model]), "{head}");
        }
        let file = "Content-Disposition: form-data; name=\"file\"; filename=\"a b.wav\"; \
                    filename*=UTF-8''a%20b.wav\r\nContent-Type: audio/wav";
        let fields = read("multipart/form-data; boundary=\"XX\"", &part(file));
        assert_eq!(fields, Some(vec![("file".to_owned(), true, "dear".to_owned())]));
        assert_eq!(read(KIND, "--XX--"), Some(vec![]), "an empty one");
    }

    #[test]
    fn what_readers_differ_about_is_not() {
        let named = "Content-Disposition: form-data; name=\"model\"";
        for head in [
            "Content-Disposition: form-data; name*=UTF-8''model",
            "Content-Disposition: form-data; name=x; name=model",
            "Content-Disposition: form-data; name=\"mo\\del\"",
            "Content-Disposition: form-data",
            "Content-Disposition: attachment; name=model",
            "Content-Disposition: form-data;\r\n name=model",
            "Content-Disposition: form-data; name=x\nContent-Disposition: form-data; name=model",
            "Content-Disposition: form-data; name=_charset_",
            &format!("{named}\r\n{named}"),
            &format!("{named}\r\nContent-Type: multipart/mixed; boundary=YY"),
            &format!("{named}\r\nContent-Type: text/plain; charset=utf-16"),
            &format!("{named}\r\nContent-Transfer-Encoding: base64"),
            &format!("{named}\r\nno header"),
        ] {
            assert_eq!(read(KIND, &part(head)), None, "{head}");
        }
        let form = part(named);
        for (kind, form) in [
            (KIND, format!("preamble\r\n{form}")),
            (KIND, format!("\r\n{form}")),
            (KIND, format!("{form}epilogue")),
            (KIND, form.replace("dear", "a\n--XX\ndear")),
            (KIND, form.replace("\r\n", "\n")),
            ("multipart/mixed; boundary=XX", form.clone()),
            ("multipart/form-data; boundary=YY; boundary=XX", form.clone()),
            ("multipart/form-data; boundary*=XX", form.clone()),
            ("multipart/form-data", form),
        ] {
            assert_eq!(read(kind, &form), None, "{kind} {form}");
        }
    }
}
