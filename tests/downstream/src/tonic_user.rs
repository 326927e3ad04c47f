//! Has gRPC clients and servers.

use tonic::{
    Status,
    transport::{Channel, Error},
};
use tonic_health::pb::health_client::HealthClient;
use tower::{Layer, ServiceBuilder};
use tower_spillover::{
    ReplayLayer, SmartFallback, SmartFallbackLayer,
    policy::{ErrorKind, MoveOn},
    replay::Replay,
};
use tower_spillover_adapters::tonic::{
    GrpcChannel, GrpcRefusal, GrpcRefusalLayer, error_kind, refusal_status,
};

pub type KindOf = fn(&Error) -> ErrorKind;
pub type Tiers = Replay<SmartFallback<GrpcChannel, GrpcChannel, KindOf>>;

pub fn client(primary: Channel, fallback: Channel) -> HealthClient<GrpcRefusal<Tiers>> {
    let move_on = MoveOn::new().errors(error_kind as KindOf);
    let [primary, fallback] = [primary, fallback].map(GrpcChannel::new);
    let tiers = SmartFallbackLayer::new(primary, fallback).move_on(move_on).into_service();
    let tiers = ServiceBuilder::new().layer(ReplayLayer::new(1 << 10)).service(tiers);
    HealthClient::new(GrpcRefusalLayer::new().layer(tiers))
}

/// What a server makes of an answer of Azure.
///
/// # Errors
///
/// When it is a refusal, with the time to come back.
#[expect(clippy::result_large_err, reason = "tonic's handlers return it")]
pub fn answered<B>(answer: http::Response<B>) -> Result<http::Response<B>, Status> {
    refusal_status(&answer).map_or(Ok(answer), Err)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tonic::transport::{Endpoint, Server, server::TcpIncoming};
    use tonic_health::pb::HealthCheckRequest;

    use super::*;

    #[tokio::test]
    async fn a_call_is_made_where_a_server_is() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let there = format!("http://{}", listener.local_addr().expect("it is bound"));
        let (_reporter, health) = tonic_health::server::health_reporter();
        let incoming = TcpIncoming::from(listener);
        tokio::spawn(Server::builder().add_service(health).serve_with_incoming(incoming));
        let closed = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let gone = format!("http://{}", closed.local_addr().expect("it is bound"));
        drop(closed);
        let [gone, there] =
            [gone, there].map(|uri| Endpoint::from_shared(uri).expect("a URI").connect_lazy());
        client(gone, there).check(HealthCheckRequest::default()).await.expect("an answer");
    }

    #[test]
    fn a_refusal_is_a_status() {
        let mut answer = http::Response::new(());
        assert!(answered(answer.clone()).is_ok());
        *answer.status_mut() = http::StatusCode::TOO_MANY_REQUESTS;
        assert!(answered(answer).is_err());
    }
}
