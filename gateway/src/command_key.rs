//! Keys for a command's requests: where they are stored, and the header that carries them.

use std::env;

use http::{HeaderName, HeaderValue, header};

use crate::files;

/// The header that carries a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[value(rename_all = "kebab-case")]
pub(crate) enum KeyHeader {
    /// `api-key: KEY`.
    ApiKey,
    /// `Authorization: Bearer KEY`.
    Bearer,
}

/// Whether a text refers to a key, and is not the key itself.
pub(crate) fn is_reference(text: &str) -> bool {
    source(text).is_some()
}

/// The header for a key given as `env:NAME` or `file:PATH`, which must not be the key itself.
///
/// # Errors
///
/// The problem, without any part of the key.
pub(crate) fn header(text: &str, header: KeyHeader) -> Result<(HeaderName, HeaderValue), String> {
    if !is_reference(text) {
        return Err("key must be env:NAME or file:PATH: command lines are visible to other users"
            .to_owned());
    }
    credential(text, header)
}

/// As [`header()`], for a file that may contain the key itself.
pub(crate) fn credential(
    text: &str,
    header: KeyHeader,
) -> Result<(HeaderName, HeaderValue), String> {
    let secret = match source(text) {
        None => text.to_owned(),
        Some(Source::Env(name)) => {
            env::var(name).map_err(|_| format!("key: the variable {name} is not set: set it"))?
        }
        Some(Source::File(path)) => {
            files::read_text(path.as_ref(), files::MAX_FILE_BYTES, files::PATIENCE)
                .map_err(|error| format!("key: the file {path} cannot be read: {error}"))?
        }
    };
    let (name, value) = match header {
        KeyHeader::ApiKey => (HeaderName::from_static("api-key"), secret.trim().to_owned()),
        KeyHeader::Bearer => (header::AUTHORIZATION, format!("Bearer {}", secret.trim())),
    };
    let mut value = HeaderValue::from_str(&value)
        .map_err(|_| "key: it has characters that no header may have".to_owned())?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// Percent-encoding of everything but unreserved characters (RFC 3986 section 2.3).
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

enum Source<'a> {
    Env(&'a str),
    File(&'a str),
}

fn source(text: &str) -> Option<Source<'_>> {
    let env = text.strip_prefix("env:").map(Source::Env);
    env.or_else(|| text.strip_prefix("file:").map(Source::File))
}
