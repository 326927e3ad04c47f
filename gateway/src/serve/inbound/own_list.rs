//! A list of what a resource keeps, with nothing in it that is not the client's.
//!
//! A page may so become shorter than was asked for. One of which nothing is left is passed over, since
//! clients take an empty page for the last one.

use bytes::Bytes;
use http::{Request, Uri, header, response};
use http_body_util::{BodyExt, Limited};
use serde_json::Value;
use tower_spillover::TryCloneBody;

use crate::{
    config::Config,
    serve::{
        clock,
        refusal::Refusal,
        routing::ownership::{Own, pairs},
        upstream::{
            error::UpstreamError,
            request_body::RequestBody,
            stack::{Answer, Stack},
        },
    },
};

/// What a list became.
pub(super) enum Listed {
    /// No list: a refusal.
    Answer(Answer),
    Own(response::Parts, Bytes),
    Failed(UpstreamError),
    /// Of the backend whose head this is.
    Unreadable(response::Parts, Refusal),
}

/// Asks for a list, and takes out what is not the client's.
pub(super) async fn list(
    stack: &Stack,
    mut request: Request<RequestBody>,
    own: Own<'_>,
    config: &Config,
) -> Listed {
    let mut pages = 0;
    loop {
        let next = copy(&request);
        let answer = match stack.send(request).await {
            Ok(answer) if answer.status().is_success() => answer,
            Ok(answer) => return Listed::Answer(answer),
            Err(error) => return Listed::Failed(error),
        };
        let (mut head, body) = answer.into_parts();
        let read = Limited::new(body, MAX_PAGE_BYTES).collect();
        let read = tokio::select! {
            read = read => read.ok(),
            () = clock::sleep(config.upstream.idle_timeout) => None,
        };
        let page = read.and_then(|page| serde_json::from_slice(&page.to_bytes()).ok());
        let Some((page, last)) = page.and_then(|page| filtered(page, own)) else {
            let refusal = Refusal::bad_gateway("The backend's list could not be read.");
            return Listed::Unreadable(head, refusal);
        };
        let is_left = page["data"].as_array().is_some_and(|data| !data.is_empty());
        let goes_on = page["has_more"].as_bool() == Some(true);
        let after = last.zip(next).and_then(|(last, next)| behind(next, &last));
        pages += 1;
        match after {
            Some(next) if !is_left && goes_on && pages < MOST_PAGES => request = next,
            _ if !is_left && goes_on => {
                let text =
                    "The next things of this client in the list are behind too many of others.";
                return Listed::Unreadable(head, Refusal::bad_gateway(text));
            }
            _ => {
                for name in [header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::ETAG] {
                    head.headers.remove(name);
                }
                return Listed::Own(head, Bytes::from(page.to_string()));
            }
        }
    }
}

/// The page with the client's own, and the last id that it had before; `None` for what is no list.
fn filtered(mut page: Value, own: Own<'_>) -> Option<(Value, Option<String>)> {
    let data = page.get_mut("data")?.as_array_mut()?;
    let id = |item: &Value| item["id"].as_str().map(str::to_owned);
    let last = data.last().and_then(id);
    data.retain(|item| item["id"].as_str().is_some_and(|id| own.shows(id)));
    let ends = [data.first().and_then(id), data.last().and_then(id)];
    let page_members = page.as_object_mut()?;
    for (name, id) in ["first_id", "last_id"].into_iter().zip(ends) {
        if let Some(member) = page_members.get_mut(name) {
            *member = id.into();
        }
    }
    Some((page, last))
}

/// The request for what comes after `last`, unless it goes backwards.
fn behind(mut request: Request<RequestBody>, last: &str) -> Option<Request<RequestBody>> {
    let is_backward = pairs(request.uri()).any(|(key, id)| key == "before" && !id.is_empty());
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if is_backward || !last.bytes().all(is_plain) {
        return None;
    }
    let query = request.uri().query().unwrap_or_default().split('&');
    let kept = query.filter(|pair| !pair.is_empty() && !pair.starts_with("after="));
    let mut target = format!("{}?after={last}", request.uri().path());
    kept.for_each(|pair| target.extend(["&", pair]));
    *request.uri_mut() = target.parse::<Uri>().ok()?;
    Some(request)
}

fn copy(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    let mut copy = Request::new(request.body().try_clone()?);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    Some(copy)
}

/// A page has a hundred things at most, and those of no list are large.
const MAX_PAGE_BYTES: usize = 8 << 20;
/// One client has nothing among so many things of others, at 20 to a page by default.
const MOST_PAGES: usize = 20;
