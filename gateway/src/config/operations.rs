//! Reads what is forwarded in addition to the API's operations and headers.

use http::{HeaderName, Method};

use super::{
    AllowedOperation,
    toml::{Section, Value},
};
use crate::api::{headers::passes_upstream, operations};

pub(super) fn operations(mut section: Section<'_>) -> Vec<AllowedOperation> {
    let list = section.get("allow").and_then(|value| value.list()).unwrap_or_default();
    section.finish();
    list.iter().filter_map(operation).collect()
}

fn operation(value: &Value<'_>) -> Option<AllowedOperation> {
    let text = value.name()?;
    let operation = text.split_once(' ').and_then(|(method, path)| {
        let is_method = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
        let method = Method::from_bytes(method.as_bytes()).ok().filter(|_| is_method)?;
        let rest = path.strip_prefix("/openai/")?;
        let path = rest.split('/').all(is_segment).then(|| path.to_owned())?;
        Some(AllowedOperation { method, path })
    });
    let Some(operation) = operation else {
        value.report(format!(
            "{text:?} is not an operation; write it like \"POST /openai/v1/new-thing\" or \
             \"GET /openai/v1/new-thing/{{id}}\", without a query"
        ));
        return None;
    };
    if [Method::CONNECT, Method::TRACE].contains(&operation.method) {
        value.report("would open a tunnel or show the backend's key; remove it");
        return None;
    }
    if operations::methods(&operation.path).any(|method| operation.method == method) {
        value.warn("has no effect: the gateway knows this operation; remove it");
    }
    Some(operation)
}

/// Plain, or a name in braces that matches any segment.
fn is_segment(segment: &str) -> bool {
    let name = segment.strip_prefix('{').and_then(|name| name.strip_suffix('}'));
    let is_plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'~');
    let name = name.unwrap_or(segment);
    !matches!(name, "" | "." | "..") && name.bytes().all(is_plain)
}

/// The headers that are forwarded in addition to those of Azure's and OpenAI's clients.
pub(super) fn headers(list: &Value<'_>) -> Vec<HeaderName> {
    list.list().unwrap_or_default().iter().filter_map(header).collect()
}

fn header(value: &Value<'_>) -> Option<HeaderName> {
    let text = value.name()?;
    let Ok(name) = text.parse::<HeaderName>() else {
        value
            .report(format!("{text:?} is not the name of a header; write it like \"x-policy-id\""));
        return None;
    };
    if passes_upstream(&name, std::slice::from_ref(&name)) {
        if passes_upstream(&name, &[]) {
            value.warn("has no effect: it is forwarded by default; remove it");
        }
        return Some(name);
    }
    value.report(
        "carries a credential, or belongs to one connection, and is never forwarded; remove it",
    );
    None
}
