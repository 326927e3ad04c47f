//! Names the model in a body that may lack it, because the path of its request names it.

use bytes::Bytes;
use http::{Request, header};

use super::{
    Deployment, Unnameable,
    body::{rename_arriving, replace_content},
    splice::{BodyEdits, Edited},
};
use crate::{
    TryCloneBody,
    azure::{
        ContentKind, MODEL_PART, Parts, boundary, error::without_mark, fields::is_model,
        json::members,
    },
};

/// Makes `deployment` the model of the body of `request`: replaces an existing one, or adds it. A
/// body that is neither one JSON object nor a form stays unchanged.
pub(super) fn name_model<B: TryCloneBody>(
    request: &mut Request<B>,
    deployment: &Deployment,
) -> Result<(), Unnameable> {
    let Some(content) = request.body().content() else {
        return rename_arriving(request, deployment, true);
    };
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let edited = match (ContentKind::named(content_type), content_type) {
        (ContentKind::Multipart, Some(form)) => in_form(&content, form.as_bytes(), deployment)?,
        _ => in_object(&content, deployment),
    };
    if let Some(edited) = edited {
        replace_content(request, edited);
    }
    Ok(())
}

/// The object with this model; `None` if it is not an object, or has this model already.
fn in_object(content: &Bytes, deployment: &Deployment) -> Option<Edited> {
    let text = without_mark(content);
    let mark = content.len() - text.len();
    let (mut edits, mut is_named, mut is_empty) = (BodyEdits::default(), false, true);
    members(text, |key, scan| {
        is_empty = false;
        let value = scan.skip_outermost()?;
        if is_model(&text[key]) {
            is_named = true;
            if text[value.clone()] != *deployment.json() {
                edits.push(value.start + mark..value.end + mark, deployment.json());
            }
        }
        Some(())
    })?;
    let comma: &[u8] = if is_empty { b"" } else { b"," };
    let member = [br#""model":"#, deployment.json(), comma].concat();
    if !is_named {
        let brace = content.iter().position(|byte| *byte == b'{')? + 1;
        edits.push(brace..brace, &member);
    }
    edits.apply(content)
}

/// The form with this model; `None` if it is not a form, or has this model already.
fn in_form(
    content: &Bytes,
    content_type: &[u8],
    deployment: &Deployment,
) -> Result<Option<Edited>, Unnameable> {
    let name = deployment.name().as_bytes();
    let length = name.len().to_string();
    let (mut edits, mut is_named, mut end) = (BodyEdits::default(), false, None);
    let Ok(parts) = Parts::of(content, content_type) else { return Ok(None) };
    for part in parts {
        let Ok(part) = part else { return Ok(None) };
        end = Some(part.content.end);
        is_named |= part.is_model;
        if part.is_model && content[part.content.clone()] != *name {
            if !part.is_plain {
                return Err(Unnameable);
            }
            if let Some(digits) = part.length {
                edits.push(digits, length.as_bytes());
            }
            edits.push(part.content, name);
        }
    }
    let delimiter = boundary(content_type).unwrap_or_default();
    let part = [b"\r\n--", &*delimiter, MODEL_PART, name].concat();
    if let Some(end) = end.filter(|_| !is_named) {
        edits.push(end..end, &part);
    }
    Ok(edits.apply(content))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn deployment() -> Deployment {
        Deployment::new("whisper \"eu\"").unwrap()
    }

    fn form(fields: &[(&str, &str)]) -> Bytes {
        let part = |(name, value): &(&str, &str)| {
            format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        let parts: String = fields.iter().map(part).collect();
        format!("preamble\r\n{parts}--XX--\r\n").into()
    }

    #[test]
    fn a_long_object_gets_its_model_without_being_copied() {
        let text = format!(r#"{{"input":"{}"}}"#, "x".repeat(300_000));
        let content = Bytes::from(text.clone());
        let edited = in_object(&content, &Deployment::new("m").unwrap()).expect("another model");
        let Edited::Pieces(pieces) = &edited else { panic!("it was copied") };
        let last = pieces.last().expect("the rest");
        assert!(content.as_ptr_range().contains(&last.as_ptr()));
        let expected = text.replacen('{', r#"{"model":"m","#, 1);
        assert!(edited.into_bytes() == expected, "not printed: 300 KB");
    }

    #[test]
    fn a_form_gets_the_model_as_its_last_field_or_in_its_place() {
        const TYPE: &[u8] = b"multipart/form-data; boundary=XX";
        let named = |fields: &[(&str, &str)]| {
            let edited = in_form(&form(fields), TYPE, &deployment()).unwrap();
            edited.map(Edited::into_bytes)
        };
        let own = ("model", "whisper \"eu\"");
        assert_eq!(named(&[("file", "x")]), Some(form(&[("file", "x"), own])));
        assert_eq!(named(&[("model", "w"), ("file", "x")]), Some(form(&[own, ("file", "x")])));
        assert_eq!(named(&[own]), None);
        assert_eq!(named(&[]), None, "a form without a field has no file either");
    }

    proptest! {
        #[test]
        fn an_object_reads_back_with_this_model_and_all_else_as_it_was(
            members in prop::collection::vec(("[a-z]{1,5}|model|mod\\\\u0065l", "[1-9][0-9]{0,2}|\"[a-z]{0,3}\"|\\{\"model\":1\\}|null"), 0..5),
            mark in prop_oneof![Just(""), Just("\u{feff}"), Just(" \n")],
        ) {
            let body: Vec<String> =
                members.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
            let body = Bytes::from(format!("{mark}{{{}}}", body.join(" , ")));
            let given: Value = serde_json::from_slice(without_mark(&body)).unwrap();
            let edited = in_object(&body, &deployment()).map(Edited::into_bytes);
            let read: Value = serde_json::from_slice(without_mark(edited.as_ref().unwrap_or(&body))).unwrap();
            let (mut given, mut read) = (given, read);
            let model = read.as_object_mut().unwrap().remove("model");
            prop_assert_eq!(model, Some(Value::from("whisper \"eu\"")));
            given.as_object_mut().unwrap().remove("model");
            prop_assert_eq!(given, read);
        }
    }
}
