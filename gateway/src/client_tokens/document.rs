//! Fetches an issuer's documents: the location of its keys, and the keys.

use std::collections::HashMap;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey,
    jwk::{Jwk, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;

use crate::{config::Tokens, http_client::Client};

/// Keys by their ids.
pub(super) type Keys = HashMap<String, Key>;

/// A public key of an issuer, and the algorithms it is for.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) decoding: DecodingKey,
    pub(super) algorithms: Vec<Algorithm>,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

/// Fetches the location of the keys from the issuer, and then the keys.
///
/// # Errors
///
/// A text for the log.
pub(super) async fn fetch(client: &Client, settings: &Tokens) -> Result<Keys, String> {
    let found: Discovery = read(client, &settings.issuer.discovery()).await?;
    let expected = settings.issuer.name();
    if found.issuer != expected {
        return Err(format!("it calls itself {:?} instead of {expected:?}", found.issuer));
    }
    if !found.jwks_uri.starts_with("https://") && !settings.allow_http {
        return Err(format!("its keys are at {:?}, which is not https://", found.jwks_uri));
    }
    let set: KeySet = read(client, &found.jwks_uri).await?;
    let keys: Keys = set.keys.into_iter().filter_map(key).collect();
    if keys.is_empty() {
        return Err("it has no key to verify signatures with".to_owned());
    }
    Ok(keys)
}

async fn read<T: for<'a> Deserialize<'a>>(client: &Client, uri: &str) -> Result<T, String> {
    let request = Request::get(uri).header(header::ACCEPT, "application/json");
    let request = request.body(Bytes::new()).map_err(|error| format!("{uri}: {error}"))?;
    let answer = client.send(request).await.map_err(|error| error.to_string())?;
    if answer.status() != StatusCode::OK {
        return Err(format!("{uri}: {}", answer.status()));
    }
    serde_json::from_slice(answer.body()).map_err(|_| format!("{uri}: not the JSON of an issuer"))
}

/// A key that verifies signatures; others may be in the same document.
fn key(value: Value) -> Option<(String, Key)> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let is_for_signatures =
        matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature))
            && jwk
                .common
                .key_operations
                .as_ref()
                .is_none_or(|all| all.contains(&KeyOperations::Verify));
    let decoding = DecodingKey::from_jwk(&jwk).ok().filter(|_| is_for_signatures)?;
    let mut algorithms = match decoding.family() {
        AlgorithmFamily::Rsa => RSA.to_vec(),
        AlgorithmFamily::Ec => EC.to_vec(),
        AlgorithmFamily::Hmac | AlgorithmFamily::Ed => return None,
    };
    if let Some(only) = jwk.common.key_algorithm {
        let only = only.to_string().parse();
        algorithms.retain(|algorithm| only.as_ref() == Ok(algorithm));
    }
    Some((jwk.common.key_id?, Key { decoding, algorithms }))
}

const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];
const EC: [Algorithm; 2] = [Algorithm::ES256, Algorithm::ES384];
