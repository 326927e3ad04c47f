//! Readdresses a request to a provider that has OpenAI's paths but not Azure's.

use http::{Request, Uri, uri::PathAndQuery};

use super::{
    BackendTarget, Deployment, RequestReading, Unnameable,
    body::rename_model,
    naming::name_model,
    query::{QueryEdit, QueryModel},
    uri::join,
};
use crate::{
    TryCloneBody,
    azure::{ApiPath, Grammar, percent},
};

/// The URI of `request` at `target`, with its model named in the body.
///
/// The target's base replaces the caller's base path and the segments that its grammar puts before
/// the operation. A path of neither grammar follows the base unchanged, except for a leading `/v1`,
/// which the base contains.
pub(super) fn rewrite<B: TryCloneBody>(
    request: &mut Request<B>,
    target: &BackendTarget,
    reading: &mut RequestReading,
) -> Result<Uri, Unnameable> {
    let read = reading.path(request.uri()).clone();
    match read.deployment() {
        Some(segment) => {
            let own;
            let deployment = match &target.deployment {
                Some(deployment) => deployment,
                None => {
                    own = caller_s(&request.uri().path()[segment])?;
                    &own
                }
            };
            name_model(request, deployment)?;
        }
        None => {
            if let Some(deployment) = &target.deployment {
                rename_model(request, reading, deployment)?;
            }
        }
    }
    Ok(moved(request.uri(), &read, target))
}

/// The deployment named in the path.
fn caller_s(segment: &str) -> Result<Deployment, Unnameable> {
    let name = percent::decode_text(segment).ok_or(Unnameable)?;
    Deployment::new(&name).ok_or(Unnameable)
}

fn moved(original: &Uri, read: &ApiPath, target: &BackendTarget) -> Uri {
    let path = original.path();
    let operation = operation(path, read);
    let names_model = read.names_model_in_query(path);
    let model = target.deployment.as_ref().filter(|_| names_model);
    let model = model.map(|it| QueryModel { name: "model", deployment: it.segment() });
    let query = original.query();
    let edit = QueryEdit { version: None, dropped: target.dropped, model };
    let edit = edit.changes(query.unwrap_or_default()).then_some(edit);
    let slash = if operation.is_empty() && !target.base.is_empty() { "" } else { "/" };
    let path_and_query = join(&[&target.base, slash, operation], query, edit);
    target.at(path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/")))
}

/// The operation of a path, without the segments of any grammar before it.
fn operation<'a>(path: &'a str, read: &ApiPath) -> &'a str {
    let rest = match read.grammar() {
        Grammar::V1 | Grammar::Resource | Grammar::Deployment(_) => {
            read.operation(path).unwrap_or_default()
        }
        Grammar::Bare => "",
        Grammar::Foreign => match path.strip_prefix("/v1") {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => rest,
            _ if path == "*" => "",
            _ => path,
        },
    };
    rest.trim_start_matches('/')
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{Method, header};
    use http_body_util::Full;
    use proptest::prelude::*;

    use super::*;
    use crate::backend::rewrite::{
        KnownPaths, Paths, parse_endpoint, query::CALLER_KEYS_AND_VERSION, rewrite_request,
    };

    fn target(base: &str, deployment: Option<&str>) -> BackendTarget {
        BackendTarget {
            base: base.into(),
            paths: Paths::OpenAi,
            deployment: deployment.map(|name| Deployment::new(name).unwrap()),
            dropped: CALLER_KEYS_AND_VERSION,
            ..parse_endpoint("https://api.openai.com").unwrap()
        }
    }

    fn rewritten(path: &str, body: &'static str, to: &BackendTarget) -> (String, String) {
        let request = Request::builder().method(Method::POST).uri(path);
        let request = request.header(header::CONTENT_LENGTH, body.len());
        let mut request = request.body(Full::<Bytes>::from(body)).unwrap();
        rewrite_request(&mut request, to, &KnownPaths::default(), &mut RequestReading::default())
            .expect("in memory");
        let (uri, length) =
            (request.uri().to_string(), request.headers()["content-length"].clone());
        let body = request.into_body().into_inner().unwrap_or_default();
        assert_eq!(length, *body.len().to_string());
        (uri, String::from_utf8(body.to_vec()).unwrap())
    }

    #[test]
    fn every_grammar_leads_to_the_operation_behind_the_base() {
        let to = target("/v1", Some("gpt-4.1"));
        for (given, expected) in [
            ("/openai/v1/chat/completions", "/v1/chat/completions"),
            (
                "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21",
                "/v1/chat/completions",
            ),
            ("/openai/responses?api-version=2025-03-01&include[]=x", "/v1/responses?include[]=x"),
            ("/openai/v1/responses/resp_1/cancel", "/v1/responses/resp_1/cancel"),
            ("/team/openai/v1/embeddings", "/v1/embeddings"),
            ("http://here.example/openai/v1/files?limit=2&api-key=k", "/v1/files?limit=2"),
            ("/v1/messages?beta=true", "/v1/messages?beta=true"),
            ("/v1", "/v1"),
            ("/v10/x", "/v1/v10/x"),
            ("/rerank", "/v1/rerank"),
            ("/openai", "/v1"),
            ("/", "/v1"),
            ("*", "/v1"),
            ("/openai/v1/realtime?model=gpt", "/v1/realtime?model=gpt-4.1"),
            ("/openai/realtime?api-version=1&deployment=gpt", "/v1/realtime?model=gpt-4.1"),
        ] {
            let (uri, _) = rewritten(given, "", &to);
            assert_eq!(uri, format!("https://api.openai.com{expected}"), "{given}");
        }
        let (uri, _) = rewritten("/openai/v1/models", "", &target("", None));
        assert_eq!(uri, "https://api.openai.com/models");
        let (uri, _) = rewritten("/", "", &target("", None));
        assert_eq!(uri, "https://api.openai.com/");
    }

    #[test]
    fn what_a_path_named_the_body_names() {
        let path = "/openai/deployments/gpt%2D4o/chat/completions";
        for (own, body, expected) in [
            (Some("gpt-4.1"), r#"{"messages":[]}"#, r#"{"model":"gpt-4.1","messages":[]}"#),
            (None, r#"{"messages":[]}"#, r#"{"model":"gpt-4o","messages":[]}"#),
            (Some("gpt-4.1"), r#"{"n":1,"model":"x"}"#, r#"{"n":1,"model":"gpt-4.1"}"#),
            (Some("gpt-4.1"), r#"{"model":null}"#, r#"{"model":"gpt-4.1"}"#),
            (Some("gpt-4.1"), " { } ", r#" {"model":"gpt-4.1" } "#),
            (Some("gpt-4.1"), "[1]", "[1]"),
            (Some("gpt-4.1"), "", ""),
        ] {
            assert_eq!(rewritten(path, body, &target("/v1", own)).1, expected, "{body}");
        }
    }

    #[test]
    fn a_body_that_names_its_model_itself_is_renamed_and_one_that_does_not_is_left_alone() {
        let to = target("/v1", Some("claude"));
        for path in ["/openai/v1/chat/completions", "/v1/messages"] {
            assert_eq!(rewritten(path, r#"{"model":"x"}"#, &to).1, r#"{"model":"claude"}"#);
            assert_eq!(rewritten(path, r#"{"prompt":{}}"#, &to).1, r#"{"prompt":{}}"#);
        }
    }

    proptest! {
        #[test]
        fn any_uri_lands_behind_the_base_without_a_version(
            path in "(/(openai|deployments|v1|chat|[!-\"$->@-~é]{0,6})){0,6}",
            query in "(\\?((api-version|API%2Dversion|a|b)(=[!-\"$-%'->@-~]{0,5})?&?){0,5})?",
            base in prop_oneof![Just(""), Just("/v1"), Just("/openai/v1")],
        ) {
            let Ok(original) = format!("{path}{query}").parse::<Uri>() else { return Ok(()) };
            let uri = moved(&original, &ApiPath::of(original.path()), &target(base, Some("m")));
            prop_assert_eq!(uri.authority().unwrap().as_str(), "api.openai.com");
            prop_assert!(uri.path().starts_with(base));
            let query = uri.query().unwrap_or_default().to_ascii_lowercase();
            let names = query.split('&').map(|pair| pair.split('=').next().unwrap_or_default());
            prop_assert!(names.into_iter().all(|name| name.replace("%2d", "-") != "api-version"));
        }
    }
}
