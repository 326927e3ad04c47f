//! The paths that most requests have, as they were rewritten, so that each is rewritten once.

use std::{fmt, sync::OnceLock};

use bytes::Bytes;
use http::{Method, Request, Uri, uri::PathAndQuery};

use super::query::{CALLER_KEYS, QueryEdit};
use crate::azure::ApiPath;

/// What the first few paths and queries become at one backend, or at all of a pool whose targets
/// differ in nothing but their host.
///
/// Nearly all requests to a deployment have the same path and query. Comparing it with a known one
/// takes a twentieth of what parsing, rewriting and checking it again does. A path that is not among
/// the first ones is rewritten for every request.
#[derive(Default)]
pub(crate) struct KnownPaths([OnceLock<Box<KnownPath>>; SLOTS]);

/// A path and query, and what it becomes.
pub(super) struct KnownPath {
    given: Box<str>,
    pub(super) rewritten: PathAndQuery,
    /// Whether the body's `model` names the deployment.
    pub(super) names_model_in_body: bool,
}

impl KnownPaths {
    /// What is known of the path and query of `uri`.
    pub(super) fn find(&self, uri: &Uri) -> Option<&KnownPath> {
        let given = uri.path_and_query()?.as_str();
        self.0.iter().map_while(OnceLock::get).find(|known| *known.given == *given).map(|it| &**it)
    }

    /// Remembers what the path of `request`, which is `read`, becomes in `uri`, if it is likely that
    /// others have the same.
    #[cold]
    pub(super) fn learn<B>(&self, request: &Request<B>, read: &ApiPath, uri: &Uri) {
        let Some(free) = self.0.iter().find(|slot| slot.get().is_none()) else { return };
        let Some(given) = request.uri().path_and_query() else { return };
        let edit = QueryEdit { version: None, dropped: CALLER_KEYS, model: None };
        // Paths with ids and queries of lists are many, and a caller's key must not stay in memory.
        let recurs = *request.method() == Method::POST
            && given.as_str().len() <= MAX_BYTES
            && matches!(read.call(given.path()), call if call.id.is_none() && call.operation.is_known())
            && !given.query().is_some_and(|query| edit.changes(query));
        if !recurs {
            return;
        }
        let Some(rewritten) = uri.path_and_query().and_then(own) else { return };
        let given = given.as_str().into();
        let names_model_in_body = read.names_model_in_body();
        // Another request may have been faster, with this path or another one.
        _ = free.set(Box::new(KnownPath { given, rewritten, names_model_in_body }));
    }
}

/// The same in memory of its own: the given one may be part of a connection's read buffer, all of
/// which it would keep.
fn own(path: &PathAndQuery) -> Option<PathAndQuery> {
    PathAndQuery::from_maybe_shared(Bytes::copy_from_slice(path.as_str().as_bytes())).ok()
}

/// Shows no path.
impl fmt::Debug for KnownPaths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KnownPaths").finish_non_exhaustive()
    }
}

/// The operations of one deployment, in both grammars and a few api-versions.
const SLOTS: usize = 8;
/// A longer path is hardly one that others have.
const MAX_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;
    use crate::backend::rewrite::{
        BackendTarget, Deployment, RequestReading, parse_endpoint, rewrite_request,
        uri::rewrite_uri,
    };

    fn target() -> BackendTarget {
        let deployment = Some(Deployment::new("ptu").unwrap());
        let api_version = Some("2025-01-01".into());
        let endpoint = parse_endpoint("https://b.net/base").unwrap();
        BackendTarget { deployment, api_version, ..endpoint }
    }

    /// The URI and the body that a request for `path` becomes, and whether its path was known.
    fn sent(known: &KnownPaths, method: Method, path: &str) -> (Uri, String, bool) {
        let request = Request::builder().method(method).uri(path);
        let mut request = request.body(Full::<Bytes>::from(r#"{"model":"gpt"}"#)).unwrap();
        let was_known = known.find(request.uri()).is_some();
        let mut reading = RequestReading::default();
        rewrite_request(&mut request, &target(), known, &mut reading).expect("it is in memory");
        let uri = request.uri().clone();
        let body = request.into_body().into_inner().unwrap();
        (uri, String::from_utf8(body.to_vec()).unwrap(), was_known)
    }

    #[test]
    fn a_path_that_recurs_is_rewritten_once_and_leads_to_the_same_place() {
        let known = KnownPaths::default();
        for (path, body) in [
            ("/openai/deployments/gpt/chat/completions?api-version=1", r#"{"model":"gpt"}"#),
            ("/openai/deployments/gpt/chat/completions", r#"{"model":"gpt"}"#),
            ("https://a.net/p/openai/v1/responses", r#"{"model":"ptu"}"#),
            ("/openai/v1/embeddings?x=%20&api-version=preview", r#"{"model":"ptu"}"#),
        ] {
            let expected = rewrite_uri(&path.parse().unwrap(), &target());
            for is_known in [false, true, true] {
                let sent = sent(&known, Method::POST, path);
                assert_eq!(sent, (expected.clone(), body.to_owned(), is_known), "{path}");
            }
        }
    }

    #[test]
    fn a_path_that_hardly_recurs_or_holds_a_key_is_not_remembered() {
        let known = KnownPaths::default();
        let long = format!("/openai/v1/responses?x={}", "x".repeat(MAX_BYTES));
        for (method, path) in [
            (Method::GET, "/openai/v1/files?after=file_1"),
            (Method::POST, "/openai/v1/responses/resp_1/cancel"),
            (Method::POST, "/openai/v1/threads/t_1/runs"),
            (Method::POST, "/openai/v1/responses?api-key=secret"),
            (Method::POST, "/openai/v1/responses?a=1&Subscription%2Dkey=secret"),
            (Method::POST, "/openai/v1/no-such-operation"),
            (Method::POST, "/"),
            (Method::POST, &long),
        ] {
            for _ in 0..2 {
                let (uri, _, was_known) = sent(&known, method.clone(), path);
                assert_eq!(uri, rewrite_uri(&path.parse().unwrap(), &target()));
                assert!(!was_known, "{path}");
            }
        }
    }

    #[test]
    fn the_first_few_paths_stay_and_others_go_where_they_should() {
        let known = KnownPaths::default();
        let path = |version| format!("/openai/deployments/d/embeddings?api-version={version}");
        for round in 0..2 {
            for version in 0..2 * SLOTS {
                let (uri, _, was_known) = sent(&known, Method::POST, &path(version));
                assert_eq!(
                    uri,
                    "https://b.net/base/openai/deployments/ptu/embeddings?api-version=2025-01-01"
                );
                assert_eq!(was_known, round == 1 && version < SLOTS, "{version}");
            }
        }
    }

    #[test]
    fn a_remembered_path_does_not_keep_the_buffer_that_it_came_in() {
        let known = KnownPaths::default();
        let buffer = Bytes::from(vec![b'x'; 8 << 10]);
        let path = "/openai/v1/responses";
        let given = [path.as_bytes(), &buffer].concat();
        let given = Bytes::from(given);
        let uri = Uri::from_maybe_shared(given.slice(..path.len())).unwrap();
        let plain = parse_endpoint("https://b.net").unwrap();
        let mut request = Request::post(uri).body(Full::<Bytes>::default()).unwrap();
        rewrite_request(&mut request, &plain, &known, &mut RequestReading::default()).unwrap();
        drop(request);
        assert!(given.is_unique());
    }
}
