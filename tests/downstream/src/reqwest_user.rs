//! Has reqwest's client, and wants to go on with its requests and responses.

use tower::Layer;
use tower_spillover::{
    PtuFirst, RegionRotateLayer, SmartFallbackLayer,
    policy::{ErrorKind, MoveOn, ReturnErrors},
};
use tower_spillover_adapters::reqwest::{HttpClient, RequestService, error_kind};

pub type KindOf = fn(&reqwest::Error) -> ErrorKind;
pub type Azure = RequestService<PtuFirst<HttpClient, ReturnErrors>>;

/// # Errors
///
/// When TLS cannot be set up.
pub fn azure(
    tiers: &SmartFallbackLayer<RegionRotateLayer, RegionRotateLayer>,
) -> Result<Azure, reqwest::Error> {
    Ok(RequestService::new(tiers.layer(HttpClient::new(reqwest::Client::builder())?)))
}

/// The same set of errors for every layer, by a type that can be named.
pub fn move_on() -> MoveOn<KindOf> {
    MoveOn::new().errors(error_kind as KindOf)
}

#[cfg(test)]
mod tests {
    use tower_spillover::Served;

    use super::*;
    use crate::azure;

    #[tokio::test]
    async fn a_request_of_reqwest_is_served_by_standard() {
        let full = azure::Azure::full().await;
        let tiers = SmartFallbackLayer::new(
            RegionRotateLayer::new(full.pool("ptu")),
            RegionRotateLayer::new(full.pool("standard")),
        );
        let azure = azure(&tiers).expect("a client");
        let url = format!("http://azure{}", azure::CHAT);
        let request = reqwest::Client::new().post(url).body(azure::PROMPT).build().expect("one");
        let response = azure.execute(request).await.expect("an answer");
        let served = response.extensions().get::<Served>().expect("an account");
        assert_eq!(served.backend(), Some("standard"));
    }
}
