//! The wait of a refusal as gRPC clients read it: pushback, and `google.rpc.RetryInfo`.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use http::{HeaderMap, HeaderName, HeaderValue};
use prost::Message;
use tonic_types::{RetryInfo, pb};
use tower_spillover::classify::Hint;

/// What `grpc-retry-pushback-ms` says for a hint (gRFC A6): milliseconds, rounded up, or a number below
/// zero where no attempt is worth making.
pub(super) fn pushback(hint: Hint) -> Option<HeaderValue> {
    match hint {
        Hint::None => None,
        Hint::TooLong => Some(HeaderValue::from_static("-1")),
        Hint::Zero => Some(HeaderValue::from_static("0")),
        Hint::After(wait) => Some(HeaderValue::from(millis(wait))),
    }
}

fn millis(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// Makes the details of a status in `headers` ask for what `hint` says, whatever they asked for before;
/// other details stay. Details that cannot be read are replaced.
pub(super) fn write_details(headers: &mut HeaderMap, hint: Hint) {
    let before = headers.get(DETAILS).and_then(|value| decode(value.as_bytes()));
    let mut status = before.unwrap_or_else(|| pb::Status {
        code: headers
            .get("grpc-status")
            .and_then(|code| code.to_str().ok()?.parse().ok())
            .unwrap_or(8),
        ..Default::default()
    });
    status.details.retain(|detail| detail.type_url != RetryInfo::TYPE_URL);
    if let Some(wait) = hint.duration() {
        let info = pb::RetryInfo { retry_delay: wait.try_into().ok() };
        let value = info.encode_to_vec();
        status.details.push(prost_types::Any { type_url: RetryInfo::TYPE_URL.to_owned(), value });
    }
    if status.details.is_empty() && !headers.contains_key(DETAILS) {
        return;
    }
    let text = BASE64_STANDARD_NO_PAD.encode(status.encode_to_vec());
    let text = HeaderValue::try_from(text).expect("base64 is a header value");
    headers.insert(DETAILS, text);
}

fn decode(text: &[u8]) -> Option<pb::Status> {
    let text = text.trim_ascii_end();
    let text = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    pb::Status::decode(&*BASE64_STANDARD_NO_PAD.decode(text).ok()?).ok()
}

const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
