//! Parses both URL grammars into an operation and a deployment.

use http::Method;

/// The target of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) grammar: Grammar,
    pub(crate) operation: Operation,
    /// From the path, or the query of a session; `None` if the body's `model` names the deployment.
    pub(crate) deployment: Option<String>,
}

/// `/openai/deployments/{deployment}/…?api-version=…`, or `/openai/v1/…`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grammar {
    Classic,
    V1,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Chat,
    Completions,
    Embeddings,
    Responses,
    Images,
    ImageEdits,
    Transcriptions,
    Translations,
    Speech,
    Videos,
    Realtime,
    Models,
    Deployments,
}

impl Operation {
    /// The operation's name in error messages.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Chat => "ChatCompletions_Create",
            Self::Completions => "Completions_Create",
            Self::Embeddings => "Embeddings_Create",
            Self::Responses => "Responses_Create",
            Self::Images => "ImageGenerations_Create",
            Self::ImageEdits => "ImageEdits_Create",
            Self::Transcriptions => "Transcriptions_Create",
            Self::Translations => "Translations_Create",
            Self::Speech => "Speech_Create",
            Self::Videos => "Videos_Create",
            Self::Realtime => "Realtime_Connect",
            Self::Models => "Models_List",
            Self::Deployments => "Deployments_List",
        }
    }

    /// Images, sounds, videos and sessions: limited by requests, not by tokens.
    pub(crate) const fn is_media(self) -> bool {
        matches!(
            self,
            Self::Images
                | Self::ImageEdits
                | Self::Transcriptions
                | Self::Translations
                | Self::Speech
                | Self::Videos
                | Self::Realtime
        )
    }

    pub(crate) const fn method(self) -> Method {
        match self {
            Self::Realtime | Self::Models | Self::Deployments => Method::GET,
            _ => Method::POST,
        }
    }
}

/// Why a request has no route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RouteError {
    NotFound,
    /// The operation exists, but with this method.
    Method(&'static str),
}

/// Finds the route of a request; the classic grammar requires an `api-version`.
pub(crate) fn route(method: &Method, path: &str, query: Option<&str>) -> Result<Route, RouteError> {
    let mut route = locate(path).ok_or(RouteError::NotFound)?;
    if route.grammar == Grammar::Classic && api_version(query).is_none() {
        return Err(RouteError::NotFound);
    }
    if *method != route.operation.method() {
        let allowed = if route.operation.method() == Method::GET { "GET" } else { "POST" };
        return Err(RouteError::Method(allowed));
    }
    if route.operation == Operation::Realtime {
        let name = if route.grammar == Grammar::Classic { "deployment" } else { "model" };
        route.deployment = Some(value(query, name).and_then(decode).unwrap_or_default());
    }
    Ok(route)
}

/// The value of `api-version`, if present.
pub(crate) fn api_version(query: Option<&str>) -> Option<&str> {
    value(query, "api-version")
}

fn value<'a>(query: Option<&'a str>, wanted: &str) -> Option<&'a str> {
    query?
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(name, value)| *name == wanted && !value.is_empty())
        .map(|(_, value)| value)
}

fn locate(path: &str) -> Option<Route> {
    let rest = path.strip_prefix("/openai/")?;
    let (grammar, deployment, operation) = if let Some(operation) = rest.strip_prefix("v1/") {
        (Grammar::V1, None, operation)
    } else if let Some(rest) = rest.strip_prefix("deployments/") {
        let (deployment, operation) = rest.split_once('/')?;
        (Grammar::Classic, Some(decode(deployment)?), operation)
    } else {
        (Grammar::Classic, None, rest)
    };
    let operation = match operation {
        "chat/completions" => Operation::Chat,
        "completions" => Operation::Completions,
        "embeddings" => Operation::Embeddings,
        "responses" => Operation::Responses,
        "images/generations" => Operation::Images,
        "images/edits" => Operation::ImageEdits,
        "audio/transcriptions" => Operation::Transcriptions,
        "audio/translations" => Operation::Translations,
        "audio/speech" => Operation::Speech,
        "videos" => Operation::Videos,
        "realtime" => Operation::Realtime,
        "models" => Operation::Models,
        "deployments" => Operation::Deployments,
        _ => return None,
    };
    let placed_in_path = !matches!(
        operation,
        Operation::Responses
            | Operation::Videos
            | Operation::Realtime
            | Operation::Models
            | Operation::Deployments
    );
    // Some operations require a deployment in a classic path, and the others forbid it.
    if grammar == Grammar::Classic && placed_in_path != deployment.is_some() {
        return None;
    }
    Some(Route { grammar, operation, deployment })
}

/// Percent-decoding (RFC 3986 section 2.1); `None` if invalid or not UTF-8.
fn decode(segment: &str) -> Option<String> {
    if segment.is_empty() {
        return None;
    }
    if !segment.contains('%') {
        return Some(segment.to_owned());
    }
    let mut decoded = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let value = digit()? * 16 + digit()?;
        decoded.push(u8::try_from(value).ok()?);
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn post(path: &str) -> Result<Route, RouteError> {
        route(&Method::POST, path, Some("api-version=2024-02-01"))
    }

    #[test]
    fn a_deployment_called_chat_is_read_from_its_own_segment() {
        let found = post("/openai/deployments/chat/chat/completions").unwrap();
        assert_eq!(found.deployment.as_deref(), Some("chat"));
        assert_eq!(found.operation, Operation::Chat);
        assert_eq!(found.grammar, Grammar::Classic);
    }

    #[test]
    fn a_deployment_name_is_percent_decoded() {
        let found = post("/openai/deployments/gpt%2D4o%20%C3%A9/embeddings").unwrap();
        assert_eq!(found.deployment.as_deref(), Some("gpt-4o é"));
        for broken in ["%", "%4", "%zz", "%ff", "%+1", ""] {
            let path = format!("/openai/deployments/{broken}/embeddings");
            assert_eq!(post(&path), Err(RouteError::NotFound), "{path}");
        }
    }

    #[test]
    fn v1_paths_need_no_api_version_and_classic_ones_do() {
        let v1 = route(&Method::POST, "/openai/v1/responses", None).unwrap();
        assert_eq!(v1.grammar, Grammar::V1);
        let classic = "/openai/deployments/a/completions";
        for query in [None, Some("api-version="), Some("version=1"), Some("")] {
            assert_eq!(route(&Method::POST, classic, query), Err(RouteError::NotFound));
        }
        assert!(route(&Method::POST, classic, Some("x=1&api-version=v")).is_ok());
    }

    #[test]
    fn responses_have_no_deployment_in_the_path_even_in_the_classic_grammar() {
        assert!(post("/openai/responses").is_ok());
        assert!(post("/openai/deployments/a/responses").is_err());
        assert!(post("/openai/chat/completions").is_err());
    }

    #[test]
    fn a_session_names_its_deployment_in_the_query() {
        let get = |path, query| route(&Method::GET, path, Some(query)).unwrap().deployment;
        let classic = get("/openai/realtime", "api-version=1&deployment=gpt%2Drt");
        assert_eq!(classic.as_deref(), Some("gpt-rt"));
        assert_eq!(get("/openai/v1/realtime", "model=rt").as_deref(), Some("rt"));
        assert_eq!(get("/openai/v1/realtime", "deployment=rt").as_deref(), Some(""));
    }

    #[test]
    fn the_wrong_method_names_the_right_one() {
        let query = Some("api-version=1");
        let path = "/openai/deployments/a/chat/completions";
        assert_eq!(route(&Method::GET, path, query), Err(RouteError::Method("POST")));
        assert_eq!(post("/openai/models"), Err(RouteError::Method("GET")));
        assert!(route(&Method::GET, "/openai/v1/models", None).is_ok());
    }

    proptest! {
        #[test]
        fn no_path_panics(path in "/openai/(deployments/)?[a-z%0-9é/]{0,40}", query in ".{0,20}") {
            let _ = route(&Method::POST, &path, Some(&query));
        }
    }
}
