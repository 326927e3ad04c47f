//! Reads a request body: JSON, or a form, of which only the model is used.

use http::{HeaderMap, header::CONTENT_TYPE};
use memchr::memmem;
use serde_json::{Value, json};

/// Why a body is refused with 400.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadRequest {
    pub(crate) message: String,
    pub(crate) param: Option<&'static str>,
}

/// The body as JSON; of a form, only its field `model`.
pub(crate) fn read(headers: &HeaderMap, body: &[u8]) -> Result<Value, BadRequest> {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if kind.is_some_and(|kind| kind.starts_with("multipart/form-data")) {
        return Ok(json!({"model": form_model(body)}));
    }
    parse(body)
}

/// The value of the first field named `model` of a form (RFC 7578).
fn form_model(body: &[u8]) -> Option<&str> {
    let named = memmem::find(body, b"name=\"model\"")?;
    let rest = &body[named..];
    let rest = &rest[memmem::find(rest, b"\r\n\r\n")? + 4..];
    std::str::from_utf8(&rest[..memmem::find(rest, b"\r\n")?]).ok()
}

/// The body as JSON; the error says where it is invalid.
pub(crate) fn parse(body: &[u8]) -> Result<Value, BadRequest> {
    let whole: Value = serde_json::from_slice(body).map_err(|error| BadRequest {
        message: format!("We could not parse the JSON body of your request: {error}."),
        param: None,
    })?;
    if whole.is_object() {
        Ok(whole)
    } else {
        Err(BadRequest {
            message: "The JSON body of your request is not an object.".to_owned(),
            param: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_says_where_the_body_breaks() {
        assert!(parse(b"{\"a\": }").unwrap_err().message.contains("line 1 column 7"));
        assert!(parse(b"[]").unwrap_err().message.contains("not an object"));
    }

    #[test]
    fn of_a_form_the_model_is_read() {
        let form = "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nstd\r\n--b--\r\n";
        assert_eq!(form_model(form.as_bytes()), Some("std"));
        for broken in ["", "name=\"model\"", "name=\"model\"\r\n\r\n", "name=\"model\"\r\n\r\nstd"]
        {
            assert_eq!(form_model(broken.as_bytes()), None, "{broken:?}");
        }
    }
}
