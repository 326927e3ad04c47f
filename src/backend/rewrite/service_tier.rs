//! Replaces the requested service tier by the default one.

use http::Request;

use super::{body::replace_content, splice::BodyEdits};
use crate::{
    TryCloneBody,
    azure::{error::without_mark, json::members},
};

/// Writes `default` if the body names a service tier; returns whether it is in memory and names one.
pub(crate) fn ask_for_default_tier<B: TryCloneBody>(request: &mut Request<B>) -> bool {
    let Some(content) = request.body().content() else { return false };
    let text = without_mark(&content);
    let mark = content.len() - text.len();
    let mut edits = BodyEdits::default();
    let is_whole = members(text, |key, scan| {
        let value = scan.skip_outermost()?;
        if text[key] == *b"service_tier" {
            edits.push(value.start + mark..value.end + mark, br#""default""#);
        }
        Some(())
    });
    let edited = is_whole.and_then(|()| edits.apply(&content));
    edited.map(|edited| replace_content(request, edited)).is_some()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::header;
    use http_body_util::Full;

    use super::*;

    #[test]
    fn only_the_tier_of_the_request_itself_is_replaced() {
        for (body, expected) in [
            (r#"{"service_tier":"flex"}"#, Some(r#"{"service_tier":"default"}"#)),
            (
                "\u{feff}{\"a\":{\"service_tier\":1}, \"service_tier\" : \"flex\" }",
                Some("\u{feff}{\"a\":{\"service_tier\":1}, \"service_tier\" : \"default\" }"),
            ),
            (r#"{"input":"service_tier"}"#, None),
            (r#"{"service_tier":"flex""#, None),
        ] {
            let request = Request::post("/").header(header::CONTENT_LENGTH, body.len());
            let mut request = request.body(Full::<Bytes>::from(body)).unwrap();
            assert_eq!(ask_for_default_tier(&mut request), expected.is_some(), "{body}");
            let expected = expected.unwrap_or(body);
            assert_eq!(request.headers()["content-length"], *expected.len().to_string());
            assert_eq!(request.body().content().unwrap(), expected);
        }
    }
}
