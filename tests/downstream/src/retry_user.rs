//! Has `tower::retry` already, and one backend.

use tower::retry::RetryLayer;
use tower_spillover::RetryAfterPolicy;

pub fn retries() -> RetryLayer<RetryAfterPolicy> {
    RetryLayer::new(RetryAfterPolicy::new())
}

#[cfg(test)]
mod tests {
    use hyper_util::{client::legacy::Client, rt::TokioExecutor};
    use spillover_emulator::Fault;
    use tower::{ServiceBuilder, ServiceExt};
    use tower_spillover::RegionRotateLayer;

    use super::*;
    use crate::azure::{Azure, chat};

    #[tokio::test]
    async fn a_short_refusal_is_waited_out() {
        let azure = Azure::full().await;
        azure.emulator.script(
            "contoso",
            "standard",
            [Fault::status(429).header("retry-after-ms", "20")],
        );
        let service = ServiceBuilder::new()
            .layer(retries())
            .layer(RegionRotateLayer::new(azure.pool("standard")))
            .service(Client::builder(TokioExecutor::new()).build_http());
        assert_eq!(service.oneshot(chat()).await.expect("an answer").status(), 200);
        assert_eq!(azure.emulator.stats().of("contoso", "standard").attempts, 2);
    }
}
