//! Verifies that a token is from the issuer, for this gateway, and currently valid.

use std::{fmt, sync::Arc};

use jsonwebtoken::{Validation, decode, decode_header, errors::ErrorKind};
use serde_json::{Map, Value};

use super::{
    claims::Claims,
    keys::{KeyCache, NoKeys},
    signature,
};
use crate::config::{Issuer, Tokens};

/// Verifies the tokens of one issuer.
pub(crate) struct Verifier {
    settings: Arc<Tokens>,
    keys: KeyCache,
}

/// Why a token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenError {
    /// With the reason, and no part of the token.
    Invalid(&'static str),
    /// The issuer's keys have not been fetched yet.
    NoKeys,
}

impl Verifier {
    /// Fetches nothing yet.
    ///
    /// # Errors
    ///
    /// If the client for the issuer's documents cannot be created.
    pub(crate) fn new(settings: &Tokens) -> Result<Self, String> {
        signature::install();
        let settings = Arc::new(settings.clone());
        let keys = KeyCache::new(Arc::clone(&settings)).map_err(|error| error.to_string())?;
        Ok(Self { settings, keys })
    }

    /// The claims of the token, if everything about it is valid.
    pub(crate) async fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        let invalid = TokenError::Invalid;
        if token.len() > MAX_TOKEN_BYTES {
            return Err(invalid("it is longer than 32 KiB"));
        }
        let header = decode_header(token).map_err(|error| invalid(reason(error.kind())))?;
        let id = header.kid.ok_or_else(|| invalid("it has no key id"))?;
        let key = self.keys.get(&id).await.map_err(|NoKeys| TokenError::NoKeys)?;
        let key = key.ok_or_else(|| invalid("its key is unknown to the issuer"))?;
        if !key.algorithms.contains(&header.alg) {
            return Err(invalid("its algorithm does not match its key"));
        }
        let mut validation = Validation::new(header.alg);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY_S;
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.set_issuer(&self.settings.issuer.names());
        validation.set_audience(&self.settings.audience);
        let claims = decode::<Map<String, Value>>(token, &key.decoding, &validation)
            .map_err(|error| invalid(reason(error.kind())))?
            .claims;
        // Exactly one issuer (RFC 7519 section 4.1.1); the library accepts several.
        if !claims.get("iss").is_some_and(Value::is_string) {
            return Err(invalid(reason(&ErrorKind::InvalidIssuer)));
        }
        let is_entra = matches!(self.settings.issuer, Issuer::Tenant { .. });
        let claims = Claims::new(claims, is_entra);
        match &self.settings.issuer {
            Issuer::Tenant { id, .. } if claims.tenant() != Some(id) => {
                Err(invalid("it is from another tenant"))
            }
            _ => Ok(claims),
        }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Whether it looks like a token: a JSON object in Base64, then a dot and more text.
pub(crate) fn looks_like_token(credential: &str) -> bool {
    credential.starts_with("ey") && credential.contains('.')
}

const fn reason(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::ExpiredSignature => "it has expired",
        ErrorKind::ImmatureSignature => "it is not valid yet",
        ErrorKind::InvalidIssuer => "it is from another issuer",
        ErrorKind::InvalidAudience => "it is for another audience",
        ErrorKind::InvalidSignature => "its signature is wrong",
        ErrorKind::MissingRequiredClaim(_) => "it lacks exp, iss or aud",
        _ => "it is not an RFC 7519 token signed by RSA or ECDSA",
    }
}

/// Tolerance for clock differences. The library's default.
const LEEWAY_S: u64 = 60;
/// Entra lists up to 200 groups, which take 8 KiB.
const MAX_TOKEN_BYTES: usize = 32 << 10;
