//! Has reqwest's client, and wants to go on with its requests and responses.

use tower::Layer;
use tower_spillover::{BackendPool, PtuFirst, RegionRotateLayer, SmartFallbackLayer};
use tower_spillover_adapters::reqwest::{HttpClient, KindOf, RequestService, move_on};

pub type Azure = RequestService<PtuFirst<HttpClient, KindOf>>;

/// # Errors
///
/// When TLS cannot be set up.
pub fn azure(ptu: BackendPool, standard: BackendPool) -> Result<Azure, reqwest::Error> {
    let tier = |pool| RegionRotateLayer::new(pool).move_on(move_on());
    let tiers = SmartFallbackLayer::new(tier(ptu), tier(standard)).move_on(move_on());
    Ok(RequestService::new(tiers.layer(HttpClient::new(reqwest::Client::builder())?)))
}

#[cfg(test)]
mod tests {
    use tower_spillover::Served;

    use super::*;
    use crate::azure;

    #[tokio::test]
    async fn a_request_of_reqwest_is_served_by_standard() {
        let full = azure::Azure::full().await;
        let azure = azure(full.pool("ptu"), full.pool("standard")).expect("a client");
        let url = format!("http://azure{}", azure::CHAT);
        let request = reqwest::Client::new().post(url).body(azure::PROMPT).build().expect("one");
        let response = azure.execute(request).await.expect("an answer");
        let served = response.extensions().get::<Served>().expect("an account");
        assert_eq!(served.backend(), Some("standard"));
    }
}
