//! Authenticates a request by its connection's certificate, its key, or its token.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, StatusCode};

use super::{
    caller::Caller,
    client_certificate::ClientCertificate,
    client_keys::{ClientKeys, presented},
};
use crate::{
    client_tokens::{Claims, TokenError, Verifier, looks_like_token},
    serve::refusal::Refusal,
};

/// Finds the client that sent these headers on a connection of `peer`.
///
/// A certificate that maps to a client takes precedence: libraries always send some key. One that
/// has expired since its handshake is refused, as in a handshake. Of the headers with keys, only
/// the one that [`presented`] selects is used.
pub(crate) async fn authenticate<'a>(
    clients: &'a ClientKeys,
    tokens: Option<&Verifier>,
    headers: &HeaderMap,
    peer: Option<&ClientCertificate>,
) -> Result<&'a Arc<Caller>, Refusal> {
    if peer.is_some_and(ClientCertificate::is_expired) {
        return Err(expired());
    }
    if let Some(caller) = clients.open() {
        return Ok(caller);
    }
    if let Some(caller) = peer.and_then(|peer| clients.by_certificate(peer)) {
        return Ok(caller);
    }
    let Some(credential) = presented(headers) else { return Err(unknown()) };
    if let Some(caller) = clients.by_key(credential) {
        return Ok(caller);
    }
    let token = str::from_utf8(credential).ok().filter(|text| looks_like_token(text));
    let (Some(tokens), Some(token)) = (tokens, token) else { return Err(unknown()) };
    let claims = tokens.verify(token).await.map_err(refusal)?;
    clients.by_claims(&claims).ok_or_else(|| unknown_client(&claims))
}

fn expired() -> Refusal {
    Refusal::new(
        StatusCode::UNAUTHORIZED,
        "401",
        "The client certificate of this connection has expired. Connect again with a valid one.",
    )
}

fn unknown() -> Refusal {
    Refusal::new(
        StatusCode::UNAUTHORIZED,
        "401",
        "Access denied due to invalid subscription key. Send a key of this gateway as \
         api-key, or as Authorization: Bearer.",
    )
}

fn refusal(error: TokenError) -> Refusal {
    match error {
        TokenError::Invalid(reason) => {
            let message = format!("Access denied due to an invalid token: {reason}.");
            let challenge =
                format!("Bearer error=\"invalid_token\", error_description=\"{reason}\"");
            let challenge = HeaderValue::try_from(challenge);
            let refusal = Refusal::new(StatusCode::UNAUTHORIZED, "401", message);
            refusal.challenge(challenge.unwrap_or(HeaderValue::from_static("Bearer")))
        }
        TokenError::NoKeys => Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ServiceUnavailable",
            "The token cannot be verified yet: the keys of its issuer have not been fetched.",
        )
        .retry_after(Duration::from_secs(2)),
    }
}

/// The token is valid, but does not map to a client.
fn unknown_client(claims: &Claims) -> Refusal {
    let message = if claims.leaves_groups_out() {
        "The token leaves out its groups, which are too many. Use app roles, or have the \
         application issue only groups that are assigned to it."
    } else {
        "No client of this gateway matches a role, a group or the subject of the token."
    };
    Refusal::new(StatusCode::FORBIDDEN, "403", message)
        .challenge(HeaderValue::from_static("Bearer error=\"insufficient_scope\""))
}
