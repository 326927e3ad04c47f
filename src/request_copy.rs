//! A request that may be sent again: a copy as cheap as possible, since it is seldom needed.

mod names;

use std::{
    mem,
    sync::atomic::{AtomicU8, Ordering},
};

use bytes::Bytes;
use http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version,
    uri::PathAndQuery,
};

use crate::{
    TryCloneBody, azure,
    body::{self, LazyContent},
    cooldown::{Load, Traffic, Weight},
};

/// A request that can be sent, or sent again.
pub(crate) enum SavedRequest<B> {
    /// Not sent yet, or not again. If its headers were restored from text, that is kept for the next
    /// copy; boxed, because few requests have it.
    Whole(Request<B>, Option<Box<PackedHeaders>>),
    /// Sent, with a copy kept.
    Copy {
        method: Method,
        uri: Uri,
        version: Version,
        headers: PackedHeaders,
        extensions: Extensions,
        body: B,
    },
    /// Sent without a copy, so it cannot be sent again. Enough remains to determine what a refusal of
    /// it is about.
    Outline { method: Method, target: Option<PathAndQuery>, content: Option<LazyContent> },
    /// Sent without a copy.
    Nothing,
}

/// Headers as text, in one allocation.
///
/// Cloning a `HeaderMap` takes two allocations and an atomic reference count for every value, and
/// another when it is dropped; names that a server read off a connection allocate once more each.
/// Copying the text takes half the time. Rebuilding the map costs as much as was saved, but only on a
/// re-send, which takes milliseconds anyway. The values of the map are then parts of the text, so that
/// the text can serve as the copy for a third sending, too.
pub(crate) enum PackedHeaders {
    Own(Vec<u8>),
    Shared(Bytes),
}

/// Whether the requests of a layer are usually sent again, which decides how they are copied.
///
/// A clone of the map takes longer than its text, but can be sent as it is, which pays where most
/// requests are sent again: while a service refuses most of them. Like a processor predicts a branch, a
/// counter between zero and three goes up by one for a request that is sent again, and down by one for
/// another; in its upper half it expects the former.
#[derive(Debug, Default)]
pub(crate) struct Resends(AtomicU8);

impl<B: TryCloneBody> SavedRequest<B> {
    /// A copy of `request` if it `may_be_resent`; nothing if its body cannot be sent twice.
    pub(crate) fn copy_if(may_be_resent: bool, request: &Request<B>) -> Self {
        let body = may_be_resent.then(|| request.body().try_clone()).flatten();
        body.map_or(Self::Nothing, |body| Self::copy(request, body, None))
    }

    /// A copy of `request` if it `may_be_resent` and its body can be sent twice; otherwise what is
    /// needed to determine what a refusal of it is about.
    pub(crate) fn copy_or_outline(
        may_be_resent: bool,
        request: &Request<B>,
        resends: &Resends,
    ) -> Self {
        if may_be_resent && let Some(body) = request.body().try_clone() {
            return match resends.are_usual() {
                true => Self::Whole(clone_with(request, body), None),
                false => Self::copy(request, body, None),
            };
        }
        Self::outline(request)
    }

    /// Takes the request for an attempt. A copy stays if it `may_be_resent` and its body can be sent
    /// twice, otherwise nothing.
    pub(crate) fn take_for_attempt(&mut self, may_be_resent: bool) -> Option<Request<B>> {
        self.take_leaving(may_be_resent, |_| Self::Nothing)
    }

    /// The same, but leaves [what a refusal is judged by](Self::copy_or_outline) instead of nothing.
    pub(crate) fn take_or_outline(&mut self, may_be_resent: bool) -> Option<Request<B>> {
        self.take_leaving(may_be_resent, Self::outline)
    }

    fn take_leaving(
        &mut self,
        may_be_resent: bool,
        otherwise: impl FnOnce(&Request<B>) -> Self,
    ) -> Option<Request<B>> {
        _ = self.whole();
        let Self::Whole(request, headers) = mem::replace(self, Self::Nothing) else { return None };
        let body = may_be_resent.then(|| request.body().try_clone()).flatten();
        *self = match body {
            Some(body) => Self::copy(&request, body, headers.map(|headers| *headers)),
            None => otherwise(&request),
        };
        Some(request)
    }

    fn outline(request: &Request<B>) -> Self {
        Self::Outline {
            method: request.method().clone(),
            target: request.uri().path_and_query().cloned(),
            content: request.body().lazy_content(),
        }
    }

    fn copy(request: &Request<B>, body: B, headers: Option<PackedHeaders>) -> Self {
        Self::Copy {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            headers: headers.unwrap_or_else(|| PackedHeaders::of(request.headers())),
            extensions: request.extensions().clone(),
            body,
        }
    }
}

impl<B> SavedRequest<B> {
    pub(crate) const fn is_kept(&self) -> bool {
        !matches!(self, Self::Outline { .. } | Self::Nothing)
    }

    /// The request as it was.
    pub(crate) fn whole(&mut self) -> Option<&Request<B>> {
        if let Self::Copy { .. } = self {
            self.restore();
        }
        match self {
            Self::Whole(request, _) => Some(request),
            _ => None,
        }
    }

    /// The request as it was, mutable.
    pub(crate) fn whole_mut(&mut self) -> Option<&mut Request<B>> {
        _ = self.whole();
        match self {
            Self::Whole(request, headers) => {
                // A change of the headers would not be in the text.
                *headers = None;
                Some(request)
            }
            _ => None,
        }
    }

    #[cold]
    fn restore(&mut self) {
        let Self::Copy { method, uri, version, headers, extensions, body } =
            mem::replace(self, Self::Nothing)
        else {
            return;
        };
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.version_mut() = version;
        *request.extensions_mut() = extensions;
        let text = headers.share();
        *request.headers_mut() = restore_headers(&text);
        *self = Self::Whole(request, Some(Box::new(PackedHeaders::Shared(text))));
    }
}

impl<B: TryCloneBody> SavedRequest<B> {
    fn parts(&self) -> Option<(&Method, &str, Option<Bytes>)> {
        match self {
            Self::Whole(request, _) => {
                Some((request.method(), request.uri().path(), request.body().content()))
            }
            Self::Copy { method, uri, body, .. } => Some((method, uri.path(), body.content())),
            Self::Outline { method, target, content } => {
                let path = target.as_ref().map_or("/", PathAndQuery::path);
                Some((method, path, content.as_ref().map(LazyContent::read)))
            }
            Self::Nothing => None,
        }
    }
}

impl<B: TryCloneBody> Load for SavedRequest<B> {
    fn traffic(&self) -> Traffic {
        let parts = self.parts();
        parts.map_or(Traffic::Tokens, |(method, path, content)| {
            azure::traffic(method, path, content.as_deref())
        })
    }

    fn weight(&self) -> Weight {
        if let Self::Whole(request, _) = self {
            return request.weight();
        }
        let parts = self.parts();
        parts.map_or(Weight::HEAVIEST, |(_, path, content)| {
            body::weight(path, content.as_deref(), || None)
        })
    }
}

impl PackedHeaders {
    fn of(headers: &HeaderMap) -> Self {
        let mut text = Vec::with_capacity(PREFIX_BYTES + headers.len() * LINE_BYTES);
        text.extend_from_slice(&(headers.len() as u64).to_ne_bytes());
        for (name, value) in headers {
            let (name, value, is_sensitive) =
                (name.as_str().as_bytes(), value.as_bytes(), value.is_sensitive());
            let lengths = (value.len() as u64) << NAME_BYTES_BITS | name.len() as u64;
            text.extend_from_slice(&(lengths << 1 | u64::from(is_sensitive)).to_ne_bytes());
            text.extend_from_slice(name);
            text.extend_from_slice(value);
        }
        Self::Own(text)
    }

    fn share(self) -> Bytes {
        match self {
            Self::Own(text) => text.into(),
            Self::Shared(text) => text,
        }
    }
}

/// The headers that were packed into `text`; their values are parts of it.
fn restore_headers(text: &Bytes) -> HeaderMap {
    let (count, mut rest) = prefix(text);
    let mut headers = HeaderMap::with_capacity(count as usize);
    for _ in 0..count {
        let (lengths, line) = prefix(rest);
        let (is_sensitive, lengths) = (lengths & 1 == 1, lengths >> 1);
        let (name, line) = line.split_at(lengths as usize & ((1 << NAME_BYTES_BITS) - 1));
        let (value, left) = line.split_at((lengths >> NAME_BYTES_BITS) as usize);
        let name = names::known(name)
            .unwrap_or_else(|| HeaderName::from_bytes(name).expect("it was a name"));
        let value = HeaderValue::from_maybe_shared(text.slice_ref(value));
        let mut value = value.expect("it was a value");
        value.set_sensitive(is_sensitive);
        headers.append(name, value);
        rest = left;
    }
    headers
}

fn prefix(text: &[u8]) -> (u64, &[u8]) {
    let (prefix, rest) = text.split_first_chunk().expect("the prefix of a line");
    (u64::from_ne_bytes(*prefix), rest)
}

/// A second request like `request`; `None` if its body cannot be sent twice.
#[inline]
#[cfg(feature = "retry")]
pub(crate) fn try_clone<B: TryCloneBody>(request: &Request<B>) -> Option<Request<B>> {
    Some(clone_with(request, request.body().try_clone()?))
}

/// A request with this `body` and otherwise like `request`.
#[inline]
fn clone_with<B>(request: &Request<B>, body: B) -> Request<B> {
    let mut clone = Request::new(body);
    *clone.method_mut() = request.method().clone();
    *clone.uri_mut() = request.uri().clone();
    *clone.version_mut() = request.version();
    *clone.headers_mut() = request.headers().clone();
    *clone.extensions_mut() = request.extensions().clone();
    clone
}

impl Resends {
    #[inline]
    fn are_usual(&self) -> bool {
        self.0.load(Ordering::Relaxed) > MOST_RESENDS / 2
    }

    /// A request that was copied `is_sent` again, or was answered at once.
    #[inline]
    pub(crate) fn note(&self, is_sent: bool) {
        let now = self.0.load(Ordering::Relaxed);
        let next = if is_sent { MOST_RESENDS.min(now + 1) } else { now.saturating_sub(1) };
        // A store would invalidate the cache line of every reader. One that is lost to another thread
        // does no harm.
        if next != now {
            self.0.store(next, Ordering::Relaxed);
        }
    }
}

/// Of a layer with other settings.
impl Clone for Resends {
    fn clone(&self) -> Self {
        Self::default()
    }
}

const MOST_RESENDS: u8 = 3;

/// The prefix of all lines: how many there are. And that of each: the length of its value, that of its name, which is under 64 KiB (`http`
/// ensures that), and whether it is sensitive.
const PREFIX_BYTES: usize = size_of::<u64>();
const NAME_BYTES_BITS: u32 = 16;

/// Capacity reserved per line. Few take more; if most do, the text grows, which costs less than adding
/// up the lengths of all.
const LINE_BYTES: usize = PREFIX_BYTES + 64;

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use proptest::prelude::*;

    use super::*;

    fn line() -> impl Strategy<Value = (HeaderName, HeaderValue)> {
        let name = prop_oneof![
            Just("host".to_owned()),
            Just("cookie".to_owned()),
            Just("api-key".to_owned()),
            "[a-z][a-z0-9-]{0,80}",
        ];
        let value = (prop::collection::vec(any::<u8>(), 0..60), any::<bool>());
        (name, value).prop_filter_map("not a value", |(name, (value, is_sensitive))| {
            let mut value = HeaderValue::from_bytes(&value).ok()?;
            value.set_sensitive(is_sensitive);
            Some((name.parse().expect("a name"), value))
        })
    }

    fn all(headers: &HeaderMap) -> Vec<(&HeaderName, &HeaderValue, bool)> {
        headers.iter().map(|(name, value)| (name, value, value.is_sensitive())).collect()
    }

    proptest! {
        #[test]
        fn a_request_comes_back_as_it_was(
            lines in prop::collection::vec(line(), 0..30),
            is_cloned in any::<bool>(),
        ) {
            let mut request = Request::put("/a?b").body(Full::<Bytes>::from("c")).expect("valid");
            *request.version_mut() = Version::HTTP_2;
            request.extensions_mut().insert(5_u8);
            lines.into_iter().for_each(|(name, value)| {
                request.headers_mut().append(name, value);
            });
            let resends = Resends::default();
            (0..MOST_RESENDS).for_each(|_| resends.note(is_cloned));
            let mut saved = SavedRequest::copy_or_outline(true, &request, &resends);
            prop_assert_eq!(matches!(saved, SavedRequest::Whole(..)), is_cloned);
            // The first is restored from the text, and so is the second, which is sent last.
            for may_be_resent in [true, false] {
                let copy = saved.take_for_attempt(may_be_resent);
                let copy = copy.expect("a body in memory can be sent twice");
                prop_assert_eq!(saved.is_kept(), may_be_resent);
                prop_assert_eq!(all(copy.headers()), all(request.headers()));
                prop_assert_eq!(copy.method(), request.method());
                prop_assert_eq!(copy.uri(), request.uri());
                prop_assert_eq!(copy.version(), request.version());
                prop_assert_eq!(copy.extensions().get(), Some(&5_u8));
                prop_assert_eq!(copy.into_body().into_inner(), request.body().clone().into_inner());
            }
        }
    }

    #[test]
    fn a_change_of_a_restored_request_is_in_all_that_follow() {
        let request = Request::builder().header("a", "1").body(Full::<Bytes>::default());
        let mut saved = SavedRequest::copy_if(true, &request.expect("valid"));
        let restored = saved.whole_mut().expect("a copy");
        restored.headers_mut().insert("a", HeaderValue::from_static("2"));
        for may_be_resent in [true, false] {
            let sent = saved.take_for_attempt(may_be_resent).expect("a copy");
            assert_eq!(sent.headers()["a"], "2");
        }
    }

    #[test]
    fn resends_are_usual_once_two_thirds_of_the_requests_are_sent_again() {
        let usual = |of_three| {
            let resends = Resends::default();
            let mut usual = 0;
            for number in 0..300 {
                usual += u32::from(resends.are_usual());
                resends.note(number % 3 < of_three);
            }
            usual
        };
        assert_eq!((usual(0), usual(1)), (0, 0));
        assert!(usual(2) > 150 && usual(3) > 290);
    }

    #[test]
    fn what_was_taken_is_not_held_any_more() {
        let mut held = SavedRequest::Whole(Request::new(Full::<Bytes>::default()), None);
        assert!(held.is_kept() && held.take_for_attempt(false).is_some());
        assert!(!held.is_kept() && held.take_for_attempt(true).is_none());
    }
}
