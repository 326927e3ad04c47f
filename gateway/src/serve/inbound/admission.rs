//! Request admission: method, target, and limits.

use std::time::{Duration, Instant};

use http::{HeaderMap, Method, StatusCode};
use tower_spillover::azure::content_length;

use super::{caller::Caller, gateway::Gateway, runtime::Runtime};
use crate::{
    config::Limits,
    serve::{
        concurrency::{ClientLimit, Concurrency, ConcurrencyPermit, Full},
        refusal::Refusal,
        routing::known_operations,
    },
};

/// Refuses requests that are not one exchange of request and answer, and targets too long for
/// servers.
pub(crate) fn check_target(head: &http::request::Parts) -> Result<(), Refusal> {
    if head.method == Method::CONNECT {
        return Err(known_operations::not_allowed("DELETE, GET, POST"));
    }
    if head.uri.path_and_query().is_some_and(|uri| uri.as_str().len() > MAX_URI_BYTES) {
        let text = format!("The path and query are longer than {MAX_URI_BYTES} bytes.");
        return Err(Refusal::new(StatusCode::URI_TOO_LONG, "UriTooLong", text));
    }
    Ok(())
}

/// Refuses requests beyond the limits for any request, or the rate of their client.
pub(crate) async fn check_limits(
    caller: &Caller,
    limits: &Limits,
    headers: &HeaderMap,
    now: Instant,
) -> Result<(), Refusal> {
    caller.take(now).await?;
    if headers.len() > limits.headers {
        return Err(Refusal::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "RequestHeaderFieldsTooLarge",
            format!("The request has more than {} header lines.", limits.headers),
        ));
    }
    if content_length(headers).is_some_and(|length| length > limits.body) {
        return Err(Refusal::too_large(limits.body));
    }
    Ok(())
}

/// Counts a request as in flight, in total and per client, if the limits allow one more.
pub(crate) fn enter(
    gateway: &Gateway,
    runtime: &Runtime,
    caller: &Caller,
    of_address: &Concurrency,
) -> Result<ConcurrencyPermit, Refusal> {
    let Limits { concurrency: limit, client_share, .. } = runtime.config().limits;
    let share = if runtime.clients.is_alone() { 1.0 } else { client_share };
    let of_client = caller.concurrency.map_or(ClientLimit::Share(share), ClientLimit::Count);
    let own = caller.under_way.as_ref().unwrap_or(of_address);
    gateway.concurrency.enter(own, limit, of_client).map_err(|full| {
        let text = match full {
            Full::All => format!("The gateway already has {limit} requests in flight."),
            Full::Client(count) => {
                format!(
                    "This client already has {count} requests in flight; it must leave room for others."
                )
            }
        };
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "ServerBusy", text)
            .retry_after(Duration::from_secs(1))
    })
}

/// The length that all servers should support (RFC 9110, section 4.1).
const MAX_URI_BYTES: usize = 8_000;
