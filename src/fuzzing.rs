//! Functions over plain types through which the fuzz targets reach internals of this crate.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Uri};

use crate::{
    azure::{ApiCall, ApiPath, Kind},
    backend::{self, BackendTarget, Deployment},
    classify::{self, NativeSpillover},
    gate::cost::{Usage, UsageScan},
    sticky::{AnswerScan, CacheAffinity, Reference, Shown},
};

/// The level that a PTU's answer reports, as a share of its limit.
pub fn utilization(headers: &HeaderMap) -> Option<f64> {
    classify::utilization(headers)
}

/// Whether an answer asks for or forbids another attempt.
pub fn should_retry(headers: &HeaderMap) -> Option<bool> {
    classify::should_retry(headers)
}

/// Whether Azure itself spilled, and the Standard deployment that refused, if named.
pub fn native_spillover(headers: &HeaderMap) -> Option<Option<&[u8]>> {
    NativeSpillover::of(headers).map(|spillover| spillover.standard(None))
}

/// Makes `headers` ask for `wait`.
pub fn write_retry_after(headers: &mut HeaderMap, wait: std::time::Duration) {
    classify::write_retry_after(headers, wait);
}

/// Where a backend's requests go.
#[derive(Debug)]
pub struct Target(BackendTarget);

impl Target {
    /// `None` if one of these is invalid for a backend.
    pub fn new(endpoint: &str, deployment: &str, version: &str, keeps_keys: bool) -> Option<Self> {
        let mut target = backend::parse_endpoint(endpoint).ok()?;
        if !deployment.is_empty() {
            target.deployment = Some(Deployment::new(deployment)?);
        }
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
        if !version.is_empty() && version.bytes().all(is_plain) {
            target.api_version = Some(version.into());
        }
        if keeps_keys {
            target.dropped = &[];
        }
        Some(Self(target))
    }

    /// The base path: empty, or without a slash at its end.
    pub fn base(&self) -> &str {
        &self.0.base
    }

    /// The host, with its port.
    pub fn authority(&self) -> &str {
        self.0.authority.as_str()
    }

    /// The URI of one attempt.
    pub fn rewrite(&self, original: &Uri) -> Uri {
        backend::rewrite_uri(original, &self.0)
    }
}

/// The URI with another deployment; `Some(None)` if nothing changes, `None` for an invalid name.
pub fn rewrite_deployment(original: &Uri, name: &str) -> Option<Option<Uri>> {
    let deployment = Deployment::new(name)?;
    Some(backend::rewrite_deployment(original, &ApiPath::of(original.path()), &deployment))
}

/// The JSON body with another `model`; results as for [`rewrite_deployment`].
pub fn rewrite_json(body: &Bytes, name: &str) -> Option<Option<Bytes>> {
    let deployment = Deployment::new(name)?;
    Some(backend::replace_model(body, None, &deployment))
}

/// The form with another `model`; results as for [`rewrite_deployment`].
pub fn rewrite_form(body: &Bytes, content_type: &[u8], name: &str) -> Option<Option<Bytes>> {
    let deployment = Deployment::new(name)?;
    Some(backend::replace_model_field(body, content_type, &deployment))
}

/// The kind of a path, `free`, `shown`, `chat`, `response` or `kept`, and the id in it.
pub fn operation(path: &str) -> (&'static str, Option<&str>) {
    let ApiCall { operation, id } = ApiPath::of(path).call(path);
    let kind = match operation.kind() {
        Kind::Free => "free",
        Kind::Shown => "shown",
        Kind::Chat => "chat",
        Kind::Response => "response",
        Kind::Kept => "kept",
    };
    (kind, id)
}

/// Calls `each` for the references in the request of a response: `id`, `item` or `sealed`, and its
/// text. Returns whether the answer will be stored.
pub fn references<'a>(
    content: &'a [u8],
    mut each: impl FnMut(&'static str, &'a [u8]),
) -> Option<bool> {
    crate::sticky::read(content, Kind::Response, |reference| match reference {
        Reference::Id(id) => each("id", id),
        Reference::Item(id) => each("item", id),
        Reference::Encrypted(text) => each("sealed", text),
    })
}

/// The prompt-cache key of a body.
pub fn cache_key(content: &[u8]) -> Option<u64> {
    CacheAffinity::KeyOrPrompt.key(content)
}

/// Calls `each` for everything in a chunked answer that its resource holds.
pub fn shown<'a>(
    pieces: impl Iterator<Item = &'a [u8]>,
    most: usize,
    mut each: impl FnMut(&'static str, &[u8]),
) {
    let mut scan = AnswerScan::new(most);
    let mut pieces = pieces.peekable();
    while let Some(piece) = pieces.next() {
        scan.push(piece, pieces.peek().is_none(), |shown| match shown {
            Shown::Id(id) => each("id", id),
            Shown::Encrypted(text) => each("sealed", text),
        });
    }
}

/// The usage in a chunked answer of this type.
pub fn usage<'a>(
    content_type: &'static str,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> Option<Usage> {
    let mut scan = UsageScan::new(Some(&HeaderValue::from_static(content_type)))?;
    pieces.for_each(|piece| scan.push(piece));
    scan.finish()
}

/// What the readers of a store's answers make of one.
#[cfg(feature = "redis")]
#[derive(Debug, Default)]
pub struct StoreAnswer {
    /// The longest time, if it is the answer of a budget or a rate.
    pub budget: Option<std::time::Duration>,
    /// The longest time, if it is the reply of a gate, or news of one.
    pub gate: Option<std::time::Duration>,
    /// The number of processes, whatever it is.
    pub replicas: u32,
    /// The number of sticky ids of which it names the holder.
    pub holders: usize,
    /// The number of primaries, if it is a cluster's.
    pub servers: Option<usize>,
}

/// Reads an answer as everything that a store may be asked; `None` if it is none.
#[cfg(feature = "redis")]
pub fn store_answer(answer: &[u8]) -> Option<StoreAnswer> {
    let (budget, gate, replicas, holders, servers) = crate::fleet::read_answer(answer)?;
    Some(StoreAnswer { budget, gate, replicas, holders, servers })
}
