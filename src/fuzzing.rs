//! What the fuzz targets see of this crate's inside, as plain functions over plain types.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Uri};

use crate::{
    azure::{ApiCall, ApiPath, Kind},
    backend::{self, BackendTarget, Deployment},
    classify::{self, NativeSpillover},
    gate::cost::{Usage, UsageScan},
    sticky::{AnswerScan, CacheAffinity, Reference, Shown},
};

/// How full a PTU's answer says it is, as a share of its limit.
pub fn utilization(headers: &HeaderMap) -> Option<f64> {
    classify::utilization(headers)
}

/// What an answer says about another attempt.
pub fn should_retry(headers: &HeaderMap) -> Option<bool> {
    classify::should_retry(headers)
}

/// Whether Azure itself spilled, and the Standard deployment that it says refused.
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
    /// `None` when one of these is not what a backend can have.
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

/// The URI with another deployment; `None` within `Some` when there is nothing to change, `None`
/// for a name that is none.
pub fn rewrite_deployment(original: &Uri, name: &str) -> Option<Option<Uri>> {
    let deployment = Deployment::new(name)?;
    Some(backend::rewrite_deployment(original, &ApiPath::of(original.path()), &deployment))
}

/// The JSON body with another `model`, as [`rewrite_deployment`] gives it.
pub fn rewrite_json(body: &Bytes, name: &str) -> Option<Option<Bytes>> {
    let deployment = Deployment::new(name)?;
    Some(backend::replace_model(body, None, &deployment))
}

/// The form with another `model`, as [`rewrite_deployment`] gives it.
pub fn rewrite_form(body: &Bytes, content_type: &[u8], name: &str) -> Option<Option<Bytes>> {
    let deployment = Deployment::new(name)?;
    Some(backend::replace_model_field(body, content_type, &deployment))
}

/// What a path is about: `free`, `shown`, `chat`, `response` or `kept`, and the id in it.
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

/// Calls `each` for what a response's request refers to: `id`, `item` or `sealed`, and its text.
/// Gives whether the answer is to be stored.
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

/// What a prompt cache may know a body by.
pub fn cache_key(content: &[u8]) -> Option<u64> {
    CacheAffinity::KeyOrPrompt.key(content)
}

/// Calls `each` for what an answer in these pieces shows that its resource holds.
pub fn shown<'a>(
    pieces: impl Iterator<Item = &'a [u8]>,
    most: usize,
    mut each: impl FnMut(&'static str, &[u8]),
) {
    let mut scan = AnswerScan::new(most);
    for piece in pieces {
        scan.push(piece, |shown| match shown {
            Shown::Id(id) => each("id", id),
            Shown::Encrypted(text) => each("sealed", text),
        });
    }
}

/// The usage in an answer of this type that comes in these pieces.
pub fn usage<'a>(
    content_type: &'static str,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> Option<Usage> {
    let mut scan = UsageScan::new(Some(&HeaderValue::from_static(content_type)))?;
    pieces.for_each(|piece| scan.push(piece));
    scan.finish()
}
