//! Moves a request's URI to a backend: authority, base path, deployment, query.

use std::{hash::Hash, sync::Arc};

use bytes::Bytes;
use http::{
    Request, Uri,
    uri::{Authority, Parts, PathAndQuery, Scheme},
};

use super::{
    RequestReading, Unnameable,
    body::{rename_model, rewrite_model},
    deployment::Deployment,
    foreign,
    known_paths::KnownPaths,
    query::{QueryEdit, QueryModel},
};
use crate::{TryCloneBody, azure::ApiPath};

/// Where a backend's requests go, and what is rewritten in them.
#[derive(Clone, Debug)]
pub(crate) struct BackendTarget {
    pub(crate) scheme: Scheme,
    pub(crate) authority: Authority,
    /// Empty or `/base/path`, without a trailing slash.
    pub(crate) base: Box<str>,
    /// The path of the endpoint as given, without a trailing slash.
    pub(crate) pasted: Box<str>,
    pub(crate) paths: Paths,
    /// `None` keeps the caller's deployment.
    pub(crate) deployment: Option<Deployment>,
    /// Valid in a query as it is. `None` keeps the caller's.
    pub(crate) api_version: Option<Box<str>>,
    /// Names of pairs that are removed from the caller's query.
    pub(crate) dropped: &'static [&'static str],
}

/// The paths that follow the base of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Paths {
    /// `/openai/deployments/{deployment}/{operation}` and `/openai/v1/{operation}`.
    Azure,
    /// `/{operation}`, after the base address of OpenAI's clients.
    OpenAi,
}

/// Readdresses `request` to a target: its URI and, if the body's `model` names the deployment, the
/// body. `reading` caches the findings of an earlier attempt, `known` those of earlier requests.
pub(crate) fn rewrite_request<B: TryCloneBody>(
    request: &mut Request<B>,
    target: &BackendTarget,
    known: &KnownPaths,
    reading: &mut RequestReading,
) -> Result<(), Unnameable> {
    if let Some(known) = known.find(request.uri()) {
        if let Some(deployment) = &target.deployment
            && known.names_model_in_body
        {
            rename_model(request, reading, deployment)?;
        }
        *request.uri_mut() = target.at(known.rewritten.clone());
        return Ok(());
    }
    let uri = if target.paths == Paths::OpenAi {
        foreign::rewrite(request, target, reading)?
    } else {
        if let Some(deployment) = &target.deployment {
            rewrite_model(request, reading, deployment)?;
        }
        let read = reading.path(request.uri());
        let uri = move_uri(request.uri(), read, target);
        known.learn(request, read, &uri);
        uri
    };
    *request.uri_mut() = uri;
    Ok(())
}

/// The URI of one attempt: always with the target's scheme and authority, and a path.
///
/// The caller's base path ends before the first segment `openai`; without one, the whole path follows
/// the target's base. A classic path gets the target's deployment and api-version. The caller's keys
/// are removed from the query. A URI that would exceed the capacity of `Uri` keeps the rest of the
/// caller's path and query. An unchanged path and query is shared, not copied.
#[cfg(any(test, fuzzing))]
pub(crate) fn rewrite_uri(original: &Uri, target: &BackendTarget) -> Uri {
    move_uri(original, &ApiPath::of(original.path()), target)
}

/// `rewrite_uri` for a URI whose path is `read`.
fn move_uri(original: &Uri, read: &ApiPath, target: &BackendTarget) -> Uri {
    let path = match original.path() {
        // Asterisk form, and authority form or an absolute form without a path (RFC 9112,
        // section 3.2).
        "*" | "" => "/",
        path => path,
    };
    let (caller_base, rest) = path.split_at(read.base);
    let (before, deployments, after) = match (read.deployment(), &target.deployment) {
        (Some(segment), Some(deployment)) => (
            &path[read.base..segment.start],
            Some((&path[segment.clone()], deployment.segment())),
            &path[segment.end..],
        ),
        _ => (rest, None, ""),
    };
    let is_same_path = same(caller_base, &target.base)
        && deployments.is_none_or(|(given, wanted)| same(given, wanted));
    let query = original.query();
    let model = target.deployment.as_ref().filter(|_| read.names_model_in_query(path));
    let model = model.map(|deployment| QueryModel {
        name: if read.is_classic() { "deployment" } else { "model" },
        deployment: deployment.segment(),
    });
    let edit = |version| {
        let edit = QueryEdit { version, dropped: target.dropped, model };
        edit.changes(query.unwrap_or_default()).then_some(edit)
    };
    let wanted_edit = edit(target.api_version.as_deref().filter(|_| read.is_classic()));
    let given = original.path_and_query().filter(|given| given.as_str().starts_with('/'));
    let path_and_query = match given {
        Some(given) if is_same_path && wanted_edit.is_none() => given.clone(),
        _ => {
            let deployment = deployments.map_or("", |(_, wanted)| wanted);
            join(&[&target.base, before, deployment, after], query, wanted_edit)
                .or_else(|| join(&[path], query, edit(None)))
                .unwrap_or_else(|| PathAndQuery::from_static("/"))
        }
    };
    target.at(path_and_query)
}

impl BackendTarget {
    /// What of it decides a path and query.
    pub(crate) fn of_paths(&self) -> impl Eq + Hash + use<> {
        let deployment = self.deployment.as_ref().map(|deployment| Arc::clone(deployment.name()));
        (self.base.clone(), deployment, self.api_version.clone(), self.dropped, self.paths)
    }

    pub(super) fn at(&self, path_and_query: PathAndQuery) -> Uri {
        let mut parts = Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(path_and_query);
        Uri::from_parts(parts).expect("a URI with scheme, authority and path is complete")
    }
}

/// The URI with another deployment and nothing else changed, for two deployments of one resource.
///
/// `read` is the path. `None` if there is nothing to change: no deployment in the path, the same one,
/// or a new URI that exceeds the capacity of `Uri`.
pub(crate) fn rewrite_deployment(
    original: &Uri,
    read: &ApiPath,
    deployment: &Deployment,
) -> Option<Uri> {
    let path = original.path();
    let segment = read.deployment()?;
    if path[segment.clone()] == *deployment.segment() {
        return None;
    }
    let pieces = [&path[..segment.start], deployment.segment(), &path[segment.end..]];
    let path_and_query = join(&pieces, original.query(), None)?;
    let mut parts = original.clone().into_parts();
    parts.path_and_query = Some(path_and_query);
    Uri::from_parts(parts).ok()
}

/// Joins a path in pieces and a query, which stays unchanged without an `edit`. `None` if it exceeds
/// the capacity of `Uri`.
pub(super) fn join(
    path: &[&str],
    query: Option<&str>,
    edit: Option<QueryEdit<'_>>,
) -> Option<PathAndQuery> {
    // `Bytes` takes over a `String` without a second allocation only if it is exactly full.
    let mut length = 0;
    write(path, query, edit, &mut |piece| length += piece.len());
    let mut text = String::with_capacity(length);
    write(path, query, edit, &mut |piece| text.push_str(piece));
    PathAndQuery::from_maybe_shared(Bytes::from(text)).ok()
}

fn write(
    path: &[&str],
    query: Option<&str>,
    edit: Option<QueryEdit<'_>>,
    emit: &mut impl FnMut(&str),
) {
    path.iter().for_each(|piece| emit(piece));
    match (query, edit) {
        (query, Some(edit)) => edit.write(query.unwrap_or_default(), emit),
        (Some(query), None) => {
            emit("?");
            emit(query);
        }
        (None, None) => {}
    }
}

/// Equality that never compares empty strings, because they have dangling pointers, and a vectorised
/// `memcmp` can spend 150 ns on the fault that it then suppresses.
fn same(one: &str, other: &str) -> bool {
    one.len() == other.len() && (one.is_empty() || one == other)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::backend::rewrite::parse_endpoint;

    fn target(
        endpoint: &str,
        deployment: Option<&str>,
        api_version: Option<&str>,
    ) -> BackendTarget {
        let deployment = deployment.map(|name| Deployment::new(name).unwrap());
        let api_version = api_version.map(Into::into);
        BackendTarget { deployment, api_version, ..parse_endpoint(endpoint).unwrap() }
    }

    fn moved(original: &str, target: &BackendTarget) -> String {
        rewrite_uri(&original.parse().unwrap(), target).to_string()
    }

    const WITH_DEPLOYMENT: &str = "completions chat/completions embeddings audio/transcriptions \
        audio/translations audio/speech images/generations images/edits batches";
    const WITHOUT_DEPLOYMENT: &str = "responses responses/resp_1 assistants threads/t/runs files \
        batches models";
    const ON_V1: &str = "responses chat/completions completions embeddings audio/transcriptions \
        audio/speech images/generations images/edits batches deployments/x";

    fn rewritten(original: &str, deployment: &Deployment) -> Option<Uri> {
        let original: Uri = original.parse().unwrap();
        rewrite_deployment(&original, &ApiPath::of(original.path()), deployment)
    }

    #[test]
    fn every_classic_operation_with_a_deployment_changes_only_that_segment() {
        let to = target("https://b.net", Some("openai"), Some("2025-01-01"));
        for operation in WITH_DEPLOYMENT.split(' ') {
            for from in ["gpt-4o", "chat", "openai", "deployments", "v1", "%6Ddl", "a%2Fb"] {
                let path = format!("/openai/deployments/{from}/{operation}");
                assert_eq!(&path[ApiPath::of(&path).deployment().unwrap()], from);
                assert!(!ApiPath::of(&path).names_model_in_body());
                assert_eq!(
                    moved(&format!("https://a.net{path}?api-version=2023-05-15&x=1"), &to),
                    format!(
                        "https://b.net/openai/deployments/openai/{operation}\
                         ?api-version=2025-01-01&x=1"
                    )
                );
            }
        }
    }

    #[test]
    fn classic_operations_without_a_deployment_get_the_api_version_and_keep_their_path() {
        let to = target("https://b.net/base", Some("chat"), Some("2025-01-01"));
        for operation in WITHOUT_DEPLOYMENT.split(' ') {
            let path = format!("/openai/{operation}");
            assert_eq!(ApiPath::of(&path).deployment(), None);
            assert!(ApiPath::of(&path).names_model_in_body());
            assert_eq!(
                moved(&path, &to),
                format!("https://b.net/base{path}?api-version=2025-01-01")
            );
        }
    }

    #[test]
    fn v1_operations_keep_path_and_query() {
        let to = target("https://b.net/base", Some("chat"), Some("2025-01-01"));
        for operation in ON_V1.split(' ') {
            let path = format!("/openai/v1/{operation}");
            assert_eq!(ApiPath::of(&path).deployment(), None);
            assert!(ApiPath::of(&path).names_model_in_body());
            assert_eq!(
                moved(&format!("{path}?api-version=preview"), &to),
                format!("https://b.net/base{path}?api-version=preview")
            );
        }
    }

    #[test]
    fn a_realtime_session_names_its_deployment_in_the_query() {
        let to = target("https://b.net", Some("rt"), Some("2025-01-01"));
        for (given, expected) in [
            (
                "/openai/realtime?api-version=1&deployment=gpt&x=1",
                "/openai/realtime?api-version=2025-01-01&x=1&deployment=rt",
            ),
            ("/openai/v1/realtime?model=gpt", "/openai/v1/realtime?model=rt"),
            ("/openai/v1/realtime/calls?model=gpt", "/openai/v1/realtime/calls?model=gpt"),
        ] {
            assert_eq!(moved(given, &to), format!("https://b.net{expected}"));
        }
    }

    #[test]
    fn the_base_of_the_caller_gives_way_to_that_of_the_backend() {
        let rooted = target("https://b.net", None, Some("1"));
        let based = target("http://b.net:8080/team/a", Some("a b/c%"), None);
        for (original, to, expected) in [
            (
                "/openai/deployments/d/x",
                &rooted,
                "https://b.net/openai/deployments/d/x?api-version=1",
            ),
            ("http://a/p/q/openai/v1/x?y", &rooted, "https://b.net/openai/v1/x?y"),
            (
                "/p/openai/deployments/d/chat/completions",
                &based,
                "http://b.net:8080/team/a/openai/deployments/a%20b%2Fc%25/chat/completions",
            ),
            ("//openai/v1/x", &rooted, "https://b.net/openai/v1/x"),
            ("/v1/models", &based, "http://b.net:8080/team/a/v1/models"),
            ("/", &based, "http://b.net:8080/team/a/"),
            ("*", &based, "http://b.net:8080/team/a/"),
            ("*", &rooted, "https://b.net/"),
            ("http://a.net", &based, "http://b.net:8080/team/a/"),
            ("http://a.net", &rooted, "https://b.net/"),
            ("http://a.net?q=1", &rooted, "https://b.net/?q=1"),
            ("a.net:443", &based, "http://b.net:8080/team/a/"),
            ("//evil.net/openai", &rooted, "https://b.net/openai?api-version=1"),
            ("//evil.net/x", &rooted, "https://b.net//evil.net/x"),
        ] {
            assert_eq!(moved(original, to), expected, "{original}");
        }
    }

    #[test]
    fn an_unchanged_path_and_query_is_shared() {
        let original: Uri = "/openai/deployments/d/x?api-version=1&y=2".parse().unwrap();
        for to in [target("https://b", None, None), target("https://b", Some("d"), Some("1"))] {
            let uri = rewrite_uri(&original, &to);
            assert_eq!(uri, "https://b/openai/deployments/d/x?api-version=1&y=2");
            assert_eq!(uri.path().as_ptr(), original.path().as_ptr());
        }
        let other = target("https://b", Some("e"), Some("1"));
        assert_ne!(rewrite_uri(&original, &other).path().as_ptr(), original.path().as_ptr());
    }

    #[test]
    fn a_uri_that_would_grow_too_long_keeps_its_path_and_query() {
        let path = format!("/openai/deployments/d/{}", "x".repeat(65_512));
        let to = target("https://b.net/base", Some("a-longer-name"), None);
        assert!(moved(&path, &to) == format!("https://b.net{path}"), "not printed: 64 KiB");
        let deployment = Deployment::new("a-longer-name").unwrap();
        assert_eq!(rewritten(&path, &deployment), None);
    }

    #[test]
    fn a_deployment_called_chat_is_replaced_only_in_its_segment() {
        let deployment = Deployment::new("deployments").unwrap();
        for (original, expected) in [
            (
                "https://a.net/p/openai/deployments/chat/chat/completions?chat=chat",
                Some("https://a.net/p/openai/deployments/deployments/chat/completions?chat=chat"),
            ),
            ("/openai/deployments/x?", Some("/openai/deployments/deployments?")),
            ("/openai/deployments/deployments/x", None),
            ("/openai/v1/chat/completions", None),
            ("a.net:443", None),
            ("*", None),
        ] {
            let changed = rewritten(original, &deployment);
            assert_eq!(changed.map(|uri| uri.to_string()).as_deref(), expected, "{original}");
        }
    }

    fn other_pairs(query: Option<&str>) -> Vec<&str> {
        let pairs = query.unwrap_or_default().split('&');
        pairs.filter(|pair| !pair.is_empty() && !pair.starts_with("api-version")).collect()
    }

    const SEGMENTS: &str = "(/(openai|deployments|v1|chat|[!-\"$->@-~é]{0,6})){0,6}";
    const QUERY: &str = "(\\?((api-version|a|b)(=[!-\"$-%'->@-~]{0,5})?&?){0,5})?";

    proptest! {
        #[test]
        fn any_uri_lands_on_the_place_and_keeps_its_other_pairs(
            path in SEGMENTS,
            query in QUERY,
            host in prop_oneof![Just(""), Just("http://a.net"), Just("https://u:p@a.net:1")],
            base in prop_oneof![Just(""), Just("/openai/x"), Just("/b")],
            version in prop_oneof![Just(None), Just(Some("2025-01-01"))],
            name in prop_oneof![Just(None), Just(Some("chat"))],
        ) {
            let Ok(original) = format!("{host}{path}{query}").parse::<Uri>() else { return Ok(()) };
            let to = target(&format!("https://b.net:8443{base}"), name, version);
            let uri = rewrite_uri(&original, &to);
            prop_assert_eq!(uri.scheme_str(), Some("https"));
            prop_assert_eq!(uri.authority().unwrap().as_str(), "b.net:8443");
            prop_assert!(uri.path().starts_with(base));
            prop_assert_eq!(other_pairs(uri.query()), other_pairs(original.query()));
            prop_assert_eq!(&uri.to_string().parse::<Uri>().unwrap(), &uri, "reads back as itself");
        }

        #[test]
        fn any_text_that_is_a_uri_is_moved_without_panic(text in "\\PC{0,60}") {
            if let Ok(original) = text.parse::<Uri>() {
                rewrite_uri(&original, &target("https://b.net", Some("d"), Some("1")));
            }
        }
    }
}
