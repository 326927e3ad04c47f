//! Filters a resource's list to the objects of the requesting client.
//!
//! A page may become shorter than requested. Pages that become empty are skipped, because clients
//! take an empty page for the last one.

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

/// The result of listing.
pub(super) enum Listed {
    /// Not a list: a refusal.
    Answer(Answer),
    Own(response::Parts, Bytes),
    Failed(UpstreamError),
    /// From the backend with this head.
    Unreadable(response::Parts, Refusal),
}

/// Requests a list, and removes the objects of other clients.
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
        let page: Option<Value> =
            read.and_then(|page| serde_json::from_slice(&page.to_bytes()).ok());
        if let Some(page) = page.as_ref().filter(|_| own.sticky.is_shared()) {
            let data = page["data"].as_array().into_iter().flatten();
            own.recall_ids(data.filter_map(|item| item["id"].as_str())).await;
        }
        let Some((page, last)) = page.and_then(|page| filtered(page, own)) else {
            let refusal = Refusal::bad_gateway("The backend's list could not be read.");
            return Listed::Unreadable(head, refusal);
        };
        let is_left = page["data"].as_array().is_some_and(|data| !data.is_empty());
        let goes_on = page["has_more"].as_bool() == Some(true);
        let after = last.zip(next).and_then(|(last, next)| behind(next, &last));
        pages += 1;
        match after {
            Some(next) if !is_left && goes_on && pages < MAX_PAGES => request = next,
            _ if !is_left && goes_on => {
                let text =
                    "The next objects of this client follow too many objects of other clients.";
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

/// Keeps the client's own objects, and returns the page's last id before that; `None` if it is not
/// a list.
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

/// The request for the page after `last`, unless it lists backwards.
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

/// A page has at most a hundred objects; large objects do not occur in lists.
const MAX_PAGE_BYTES: usize = 8 << 20;
/// Allows for a client that has none of this many pages of objects, 20 per page by default.
const MAX_PAGES: usize = 20;
