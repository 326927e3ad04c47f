//! A multipart form with another `model`: other parts stay identical byte for byte.
#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tower_spillover::fuzzing;

// An arbitrary form, or the parts of a well-formed one.
fuzz_target!(|input: &[u8]| {
    if input.starts_with(b"--") || input.starts_with(b"\r\n") {
        as_it_is(input);
    } else {
        let mut input = Unstructured::new(input);
        if let Ok(parts) = Vec::arbitrary(&mut input) {
            well_formed(&parts);
        }
    }
});

/// The boundary is `X`, or what follows the two dashes.
fn as_it_is(form: &[u8]) {
    let line = form.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let boundary = line.strip_prefix(b"--").unwrap_or(b"X").trim_ascii_end();
    let kind = [b"multipart/form-data; boundary=", boundary].concat();
    let body = Bytes::copy_from_slice(form);
    if let Some(Some(new)) = fuzzing::rewrite_form(&body, &kind, "d") {
        // A content that ends in white space may merge with the next header: rewriting again finds
        // what the first pass wrote.
        assert_eq!(fuzzing::rewrite_form(&new, &kind, "d"), Some(None), "a second time");
        assert!(new.len() < body.len() + 4096);
    }
    // A content type chosen by the caller.
    fuzzing::rewrite_form(&body, line, "d");
    fuzzing::rewrite_form(&body, &[b"multipart/form-data;", line].concat(), "d");
}

#[derive(Arbitrary, Debug)]
struct Part<'a> {
    name: Name,
    disposition: Spelling,
    extra: Extra,
    content: &'a [u8],
}

#[derive(Arbitrary, Clone, Copy, Debug, PartialEq)]
enum Name {
    Model,
    File,
    Prompt,
    ModelName,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Spelling {
    Plain,
    Unquoted,
    Folded,
    NameLast,
    Shouted,
}

#[derive(Arbitrary, Clone, Copy, Debug, PartialEq)]
enum Extra {
    None,
    Type,
    Length,
}

fn well_formed(parts: &[Part<'_>]) {
    let has_boundary = |part: &Part<'_>| part.content.windows(5).any(|text| text == b"--X-y");
    if parts.iter().any(has_boundary) {
        return;
    }
    let form = |model: Option<&[u8]>| {
        let mut form = Vec::new();
        for part in parts {
            let content = match model {
                Some(model) if part.name == Name::Model => model,
                _ => part.content,
            };
            // A part that already has the new value stays as it is, including its length.
            part.write(content, &mut form);
        }
        form.extend_from_slice(b"--X-y--\r\n");
        Bytes::from(form)
    };
    let (given, expected) = (form(None), form(Some(b"gpt-eu")));
    let new = fuzzing::rewrite_form(&given, b"multipart/form-data; boundary=\"X-y\"", "gpt-eu");
    let new = new.expect("a name");
    assert_eq!(new.is_some(), given != expected, "a form is not copied in vain");
    assert_eq!(new.unwrap_or(given), expected);
}

impl Part<'_> {
    fn write(&self, content: &[u8], form: &mut Vec<u8>) {
        let name = match self.name {
            Name::Model => "model",
            Name::File => "file",
            Name::Prompt => "prompt",
            Name::ModelName => "modelname",
        };
        let head = match self.disposition {
            Spelling::Plain => format!("Content-Disposition: form-data; name=\"{name}\""),
            Spelling::Unquoted => format!("content-disposition:form-data;name={name}"),
            Spelling::Folded => format!("Content-Disposition: form-data;\r\n\tname=\"{name}\""),
            Spelling::NameLast => {
                format!(
                    "Content-Disposition: form-data; filename=\"a;name=model\"; name=\"{name}\""
                )
            }
            Spelling::Shouted => format!("CONTENT-DISPOSITION: FORM-DATA ; NAME = \"{name}\""),
        };
        let extra = match self.extra {
            Extra::None => String::new(),
            Extra::Type => "\r\nContent-Type: text/plain".to_owned(),
            Extra::Length => format!("\r\nContent-Length: {}", content.len()),
        };
        form.extend_from_slice(format!("--X-y\r\n{head}{extra}\r\n\r\n").as_bytes());
        form.extend_from_slice(content);
        form.extend_from_slice(b"\r\n");
    }
}
