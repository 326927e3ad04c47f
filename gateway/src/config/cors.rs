//! Reads which web pages may use the gateway from a browser.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};

use super::{
    Cors, Origins,
    toml::{Section, Value},
};

pub(super) fn cors(mut section: Section<'_>) -> Cors {
    let origins = section.required("origins", "add origins = [\"https://app.example.com\"]");
    let origins = origins.and_then(|value| read_origins(&value)).unwrap_or_default();
    let headers = section.get("headers").and_then(|value| value.list());
    let headers = headers.map(|list| list.iter().filter_map(header).collect());
    let credentials = section.get("credentials");
    let is_credentialed = credentials.as_ref().and_then(Value::flag).unwrap_or(false);
    if let Some(value) = credentials.filter(|_| is_credentialed && origins == Origins::Any) {
        value.report(
            "cannot be combined with origins = [\"*\"], which browsers refuse; name the origins",
        );
    }
    let max_age = section.duration("max_age", Duration::ZERO, Duration::from_secs(600));
    section.finish();
    Cors { origins, headers, credentials: is_credentialed, max_age }
}

fn read_origins(value: &Value<'_>) -> Option<Origins> {
    let list = value.list()?;
    if list.is_empty() {
        value.report("is empty; name an origin such as \"https://app.example.com\"");
    }
    let texts: Vec<_> = list.iter().filter_map(|value| Some((value, value.text()?))).collect();
    if let Some((any, _)) = texts.iter().find(|(_, text)| *text == "*") {
        if texts.len() > 1 {
            any.report(
                "allows all origins, and cannot be combined with others; remove one of the two",
            );
        }
        return Some(Origins::Any);
    }
    Some(Origins::These(texts.iter().filter_map(|(value, text)| origin(value, text)).collect()))
}

/// In the form that browsers send: without a path, and without the scheme's default port.
fn origin(value: &Value<'_>, text: &str) -> Option<HeaderValue> {
    let plain = |uri: &Uri| {
        let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
        let default = match scheme {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        };
        let port = authority.port_u16().filter(|port| Some(*port) != default);
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        let host = authority.host().to_ascii_lowercase();
        let is_whole = uri.path() == "/" && !text.ends_with('/') && uri.query().is_none();
        let is_plain = is_whole && !authority.as_str().contains('@');
        is_plain.then(|| format!("{scheme}://{host}{port}"))
    };
    let origin = text.parse().ok().as_ref().and_then(plain);
    let origin = origin.and_then(|origin| HeaderValue::try_from(origin).ok());
    if origin.is_none() {
        value.report(format!(
            "{text:?} is not an origin; write its scheme, host and port, such as \
             \"https://app.example.com\""
        ));
    }
    origin
}

fn header(value: &Value<'_>) -> Option<HeaderName> {
    let text = value.text()?;
    let name = text.parse().ok();
    if name.is_none() {
        value.report(format!("{text:?} is not the name of a header; use letters, digits and -"));
    }
    name
}
