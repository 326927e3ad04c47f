//! Requests for a WebSocket: whether they are accepted, the client's key, and the model.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts};
use hyper::upgrade::OnUpgrade;
use tower_spillover::azure::{ApiPath, percent};

use super::opening::Opening;
use crate::serve::refusal::Refusal;

/// The first request of a realtime session.
pub(super) struct Handshake {
    /// The deployment named by the query, decoded.
    pub(super) model: Option<String>,
    pub(super) opening: Opening,
}

impl Handshake {
    /// Reads a request's head, and moves the key from where browsers put it; `None` for a request
    /// that is not a handshake.
    ///
    /// # Errors
    ///
    /// If a session is requested without a WebSocket, or a WebSocket for another operation. Clients
    /// that can do without a WebSocket continue after a 426 (RFC 9110 section 15.5.22).
    pub(super) fn of(head: &mut Parts) -> Result<Option<Self>, Refusal> {
        let path = head.uri.path();
        let is_session = ApiPath::of(path).names_model_in_query(path);
        let client = head.extensions.remove::<OnUpgrade>();
        let client = client.filter(|_| head.method == Method::GET && is_websocket(&head.headers));
        match (client, is_session) {
            (Some(client), true) => {
                let model = model(head.uri.query().unwrap_or_default())?;
                move_key(head);
                Ok(Some(Self { model, opening: Opening::new(client, &head.headers) }))
            }
            (None, true) => Err(Refusal::upgrade(
                "websocket",
                "A realtime session needs a WebSocket over HTTP/1.1.",
            )),
            (Some(_), false) => Err(Refusal::upgrade(
                "HTTP/1.1",
                "Only realtime sessions are carried over WebSocket. Send a plain request.",
            )),
            (None, false) => Ok(None),
        }
    }
}

fn is_websocket(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::UPGRADE).iter();
    values.filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').any(|protocol| protocol.trim().eq_ignore_ascii_case("websocket"))
    })
}

/// The one model that a query names, as a deployment or as a model.
fn model(query: &str) -> Result<Option<String>, Refusal> {
    let unclear = || {
        let text = "The query has to name one deployment or model.";
        Refusal::new(StatusCode::BAD_REQUEST, "BadRequest", text)
    };
    let mut found = None;
    for (name, value) in pairs(query) {
        if !["deployment", "model"].iter().any(|known| name.eq_ignore_ascii_case(known)) {
            continue;
        }
        let value = value.filter(|value| !value.is_empty()).ok_or_else(unclear)?;
        if found.as_ref().is_some_and(|known| *known != value) {
            return Err(unclear());
        }
        found = Some(value);
    }
    Ok(found.map(Cow::into_owned))
}

/// Pairs whose name can be decoded; the value is `None` if it cannot be decoded.
fn pairs(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Option<Cow<'_, str>>)> {
    query.split('&').filter_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((percent::decode_text(name)?, percent::decode_text(value)))
    })
}

/// Browsers cannot set headers of a handshake: they send the key as one of the offered protocols,
/// as OpenAI's libraries do, or in the query. It is treated like any other key, and not forwarded.
fn move_key(head: &mut Parts) {
    let offered = head.headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let offered: Vec<String> = offered
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|protocol| str::from_utf8(protocol).ok())
        .map(|protocol| protocol.trim().to_owned())
        .collect();
    let mut key = offered.iter().find_map(|protocol| key_in(protocol)).map(str::to_owned);
    let protocols: Vec<String> = offered.into_iter().filter(|it| is_protocol(it)).collect();
    head.headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
    if let Ok(protocols) = HeaderValue::try_from(protocols.join(", "))
        && !protocols.is_empty()
    {
        head.headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocols);
    }
    if key.is_none() {
        let query = head.uri.query().unwrap_or_default();
        let mut keys = pairs(query).filter(|(name, _)| name.eq_ignore_ascii_case("api-key"));
        key = keys.next().and_then(|(_, value)| value).map(Cow::into_owned);
    }
    let has_key = [API_KEY, header::AUTHORIZATION].iter().any(|it| head.headers.contains_key(it));
    if let Some(key) = key.filter(|_| !has_key)
        && let Ok(key) = HeaderValue::try_from(key)
    {
        head.headers.insert(API_KEY, key);
    }
}

fn key_in(protocol: &str) -> Option<&str> {
    let (name, key) = protocol.split_at_checked(KEY_PROTOCOL.len())?;
    name.eq_ignore_ascii_case(KEY_PROTOCOL).then_some(key)
}

/// Whether an offer is a token (RFC 6455 section 4.1) without a credential.
fn is_protocol(offered: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let lower = offered.to_ascii_lowercase();
    !offered.is_empty()
        && offered.bytes().all(plain)
        && !CREDENTIALS.iter().any(|word| lower.contains(word))
}

/// The headers of the WebSocket negotiation (RFC 6455 section 11.3), which go to the backend.
pub(super) const HEADERS: [HeaderName; 4] = [
    header::SEC_WEBSOCKET_EXTENSIONS,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_PROTOCOL,
    header::SEC_WEBSOCKET_VERSION,
];
const API_KEY: HeaderName = HeaderName::from_static("api-key");
const KEY_PROTOCOL: &str = "openai-insecure-api-key.";
/// Words in the names of protocols that carry a credential, of any service.
const CREDENTIALS: [&str; 6] = ["key", "token", "bearer", "authorization", "secret", "password"];

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn moved(target: &str, protocols: &str) -> (Option<String>, Option<String>) {
        let request = Request::get(target).header(header::SEC_WEBSOCKET_PROTOCOL, protocols);
        let (mut head, ()) = request.body(()).expect("a request").into_parts();
        move_key(&mut head);
        let read = |name: HeaderName| {
            head.headers.get(name).map(|value| value.to_str().expect("text").to_owned())
        };
        (read(API_KEY), read(header::SEC_WEBSOCKET_PROTOCOL))
    }

    #[test]
    fn the_key_of_a_browser_is_read_and_goes_no_further() {
        let some = |text: &str| Some(text.to_owned());
        for (target, protocols, expected) in [
            ("/", "realtime,openai-insecure-api-key.k, a", (some("k"), some("realtime, a"))),
            ("/", "openai-insecure-api-key.k", (some("k"), None)),
            ("/?a=1&Api%2Dkey=k", "realtime", (some("k"), some("realtime"))),
            ("/", "realtime", (None, some("realtime"))),
            ("/", "OpenAI-Insecure-API-Key.k, realtime", (some("k"), some("realtime"))),
            ("/", "realtime, \"openai-insecure-api-key.k\"", (None, some("realtime"))),
            ("/", "openai-ephemeral-key.k, Bearer.k, my-api_key.k, a", (None, some("a"))),
            ("/", "realtime, openai-project.p", (None, some("realtime, openai-project.p"))),
        ] {
            assert_eq!(moved(target, protocols), expected, "{target} {protocols}");
        }
    }

    #[test]
    fn a_query_names_one_model() {
        for (query, expected) in [
            ("deployment=gpt%2D4o&x=1", Some(Some("gpt-4o"))),
            ("model=a&deployment=a", Some(Some("a"))),
            ("x=1", Some(None)),
            ("model=a&deployment=b", None),
            ("model=a&Model=b", None),
            ("model=", None),
            ("model=%ff", None),
        ] {
            let model = model(query).ok();
            assert_eq!(model.as_ref().map(Option::as_deref), expected, "{query}");
        }
    }
}
