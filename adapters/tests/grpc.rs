//! What gRPC clients get when everything is closed, and how the layers read what servers send.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper_util::{client::legacy::Client as Hyper, rt::TokioExecutor};
use spillover_testing::{
    azure::{Azure, refused_for},
    protocol::{Client, Protocol},
    real::{Stopwatch, soon},
};
use tokio::net::TcpListener;
use tonic::{
    Code, Status,
    codegen::BoxStream,
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_client::HealthClient,
    health_server::{Health, HealthServer},
};
use tonic_types::{ErrorDetails, StatusExt};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_spillover::{
    Backend, BackendPool, PtuFirst, RegionRotateLayer, ReplayLayer, SmartFallback,
    SmartFallbackLayer, WaitLayer,
    policy::{ErrorKind, MoveOn},
};
use tower_spillover_adapters::tonic::{GrpcChannel, GrpcRefusalLayer, error_kind, refusal_status};

const PTU: &str = "east/gpt-4o-ptu";
const STANDARD: &str = "east/gpt-4o";
const CHAT: &str = "/openai/deployments/m/chat/completions?api-version=2024-10-21";

/// A server whose calls do what a function says, and note when they came.
struct Grpc {
    uri: String,
    channel: GrpcChannel,
    calls: Arc<Mutex<Vec<Stopwatch>>>,
}

impl Grpc {
    async fn serving(service: impl Health) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let uri = format!("http://{}", listener.local_addr().expect("it is bound"));
        let calls = Arc::<Mutex<Vec<_>>>::default();
        let noted = Arc::clone(&calls);
        let note = tower::util::MapRequestLayer::new(move |request: Request<tonic::body::Body>| {
            noted.lock().unwrap().push(Stopwatch::start());
            request
        });
        let server = Server::builder().layer(note).add_service(HealthServer::new(service));
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        let endpoint = Endpoint::from_shared(uri.clone()).unwrap();
        Self { uri, channel: GrpcChannel::new(endpoint.connect().await.unwrap()), calls }
    }

    /// Refuses its first calls.
    async fn refusing<const N: usize>(refusals: [Status; N]) -> Self {
        Self::serving(Refusing(Mutex::new(refusals.to_vec()))).await
    }

    fn calls(&self) -> usize {
        self.calls.lock().unwrap().len()
    }

    fn pauses(&self) -> Vec<Duration> {
        let calls = self.calls.lock().unwrap();
        calls.windows(2).map(|pair| pair[0].elapsed() - pair[1].elapsed()).collect()
    }
}

struct Refusing(Mutex<Vec<Status>>);

/// Asks Azure for every check, as a service of one's own would.
struct Asking(PtuFirst<Client<Full<Bytes>>>);

fn serving() -> tonic::Response<HealthCheckResponse> {
    tonic::Response::new(HealthCheckResponse { status: ServingStatus::Serving.into() })
}

#[tonic::async_trait]
impl Health for Refusing {
    type WatchStream = BoxStream<HealthCheckResponse>;

    async fn check(
        &self,
        _: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, Status> {
        let mut refusals = self.0.lock().unwrap();
        if refusals.is_empty() { Ok(serving()) } else { Err(refusals.remove(0)) }
    }

    async fn watch(
        &self,
        _: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("watch"))
    }
}

#[tonic::async_trait]
impl Health for Asking {
    type WatchStream = BoxStream<HealthCheckResponse>;

    async fn check(
        &self,
        _: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, Status> {
        let request = Request::post(CHAT).body(Full::from(r#"{"messages": []}"#)).unwrap();
        let answer = self.0.clone().oneshot(request).await;
        let answer = answer.map_err(|error| Status::from_error(error.into()))?;
        match refusal_status(&answer) {
            Some(status) => Err(status),
            None => Ok(serving()),
        }
    }

    async fn watch(
        &self,
        _: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("watch"))
    }
}

async fn check<S, R>(service: S) -> Result<(), Status>
where
    S: Service<Request<tonic::body::Body>, Response = Response<R>>,
    S::Error: Into<tower::BoxError>,
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<tower::BoxError> + Send,
{
    let mut client = HealthClient::new(service);
    soon(client.check(HealthCheckRequest::default())).await.map(drop)
}

/// A server that asks Azure, where everything is closed for a while.
async fn closed(azure: &Azure) -> Grpc {
    azure.script(PTU, [refused_for(30_000)]);
    azure.script(STANDARD, [refused_for(20_000)]);
    let layer = SmartFallbackLayer::new(
        RegionRotateLayer::new(azure.pool([PTU])),
        RegionRotateLayer::new(azure.pool([STANDARD])),
    );
    Grpc::serving(Asking(layer.layer(Protocol::Http1.client()))).await
}

fn pushback(status: &Status) -> Option<u64> {
    status.metadata().get("grpc-retry-pushback-ms")?.to_str().ok()?.parse().ok()
}

#[tokio::test]
async fn a_server_whose_backends_are_all_closed_says_when_to_come_back() {
    let azure = Azure::open(&["east"]).await;
    let grpc = closed(&azure).await;
    for _ in 0..2 {
        let status = check(grpc.channel.clone()).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        let ms = pushback(&status).expect("a pushback");
        assert!((19_000..=20_000).contains(&ms), "{ms}");
        let info = status.get_details_retry_info().expect("a RetryInfo");
        let delay = info.retry_delay.expect("a delay").as_millis();
        assert!(delay.abs_diff(ms.into()) <= 1, "{delay} and {ms}");
    }
    assert_eq!(azure.attempts(), 2, "the second call was refused from memory");
}

#[tokio::test]
async fn a_client_s_layers_read_what_such_a_server_says() {
    let azure = Azure::open(&["east"]).await;
    let (primary, fallback) = (closed(&azure).await, Grpc::refusing([]).await);
    let service = ServiceBuilder::new()
        .layer(ReplayLayer::new(1 << 10))
        .service(SmartFallback::new(primary.channel.clone(), fallback.channel.clone()));
    for _ in 0..3 {
        check(service.clone()).await.unwrap();
    }
    assert_eq!((primary.calls(), fallback.calls()), (1, 3), "the primary is known to be closed");
}

#[tokio::test]
async fn a_retry_info_is_waited_out_where_there_is_no_pushback() {
    for code in [Code::ResourceExhausted, Code::Unavailable] {
        let details = ErrorDetails::with_retry_info(Some(Duration::from_millis(120)));
        let grpc = Grpc::refusing([Status::with_error_details(code, "full", details)]).await;
        let service = ServiceBuilder::new()
            .layer(ReplayLayer::new(1 << 10))
            .layer(WaitLayer::new())
            .service(grpc.channel.clone());
        check(service).await.unwrap();
        let pauses = grpc.pauses();
        assert!(pauses.len() == 1 && pauses[0] >= Duration::from_millis(120), "{code}: {pauses:?}");
    }
}

fn pool<const N: usize>(servers: [&Grpc; N]) -> BackendPool {
    let backend = |(index, grpc): (usize, &Grpc)| {
        Backend::new(format!("grpc-{index}"), &*grpc.uri).unwrap().api_key("key")
    };
    BackendPool::new(servers.into_iter().enumerate().map(backend)).unwrap()
}

#[tokio::test]
async fn a_pool_of_grpc_servers_rotates_and_refuses_in_grpc() {
    let full = |ms: u64| {
        let mut status = Status::resource_exhausted("full");
        status.metadata_mut().insert("grpc-retry-pushback-ms", ms.into());
        status
    };
    let first = Grpc::refusing([full(40_000)]).await;
    let second = Grpc::refusing([full(30_000)]).await;
    let client = Hyper::builder(TokioExecutor::new()).http2_only(true).build_http();
    let service = ServiceBuilder::new()
        .layer(GrpcRefusalLayer::new())
        .layer(ReplayLayer::new(1 << 10))
        .layer(RegionRotateLayer::new(pool([&first, &second])))
        .service(client);
    for _ in 0..2 {
        let status = check(service.clone()).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        let ms = pushback(&status).expect("a pushback");
        assert!((29_000..=30_000).contains(&ms), "the sooner of both: {ms}");
        let info = status.get_details_retry_info().expect("a RetryInfo");
        assert!(info.retry_delay.expect("a delay").as_millis().abs_diff(ms.into()) <= 1);
    }
    assert_eq!((first.calls(), second.calls()), (1, 1));
}

#[tokio::test]
async fn a_tonic_server_with_the_layer_completes_what_its_handlers_say() {
    let mut status = Status::resource_exhausted("full");
    status.metadata_mut().insert("grpc-retry-pushback-ms", 1_500.into());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let uri = format!("http://{}", listener.local_addr().expect("it is bound"));
    let server = Server::builder()
        .layer(GrpcRefusalLayer::new())
        .add_service(HealthServer::new(Refusing(Mutex::new(vec![status]))));
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    let channel = GrpcChannel::new(Endpoint::from_shared(uri).unwrap().connect_lazy());
    let status = check(channel.clone()).await.unwrap_err();
    assert_eq!((status.message(), pushback(&status)), ("full", Some(1_500)));
    let info = status.get_details_retry_info().expect("a RetryInfo");
    assert_eq!(info.retry_delay, Some(Duration::from_millis(1_500)));
    check(channel).await.expect("an answer passes as it is");
}

#[tokio::test]
async fn a_call_moves_on_from_a_server_that_cannot_be_connected_to() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let gone = Endpoint::from_shared(format!("http://{gone}")).unwrap().connect_lazy();
    let error = refused(gone.clone()).await;
    assert_eq!(error_kind(&error), ErrorKind::Connect, "{error:?}");

    let fallback = Grpc::refusing([]).await;
    let tiers = SmartFallbackLayer::new(GrpcChannel::new(gone), fallback.channel.clone())
        .move_on(MoveOn::new().errors(error_kind))
        .into_service();
    check(ServiceBuilder::new().layer(ReplayLayer::new(1 << 10)).service(tiers)).await.unwrap();
    assert_eq!(fallback.calls(), 1);
}

#[tokio::test]
async fn a_channel_that_runs_out_of_time_or_breaks_says_so() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", silent.local_addr().unwrap());
    let endpoint = Endpoint::from_shared(uri).unwrap();
    let error = refused(endpoint.clone().timeout(Duration::from_millis(50)).connect_lazy()).await;
    assert_eq!(error_kind(&error), ErrorKind::Timeout, "{error:?}");

    let channel = endpoint.connect_lazy();
    tokio::spawn(async move {
        // Two connections: one may be in the backlog from before.
        while let Ok((stream, _)) = silent.accept().await {
            drop(stream);
        }
    });
    let error = refused(channel).await;
    let kind = error_kind(&error);
    assert!(matches!(kind, ErrorKind::Reset | ErrorKind::Connect), "{kind:?}: {error:?}");
}

/// The error of a call over `channel`.
async fn refused(channel: Channel) -> tonic::transport::Error {
    let request = Request::post("/grpc.health.v1.Health/Check").body(Full::<Bytes>::default());
    let call = GrpcChannel::new(channel).oneshot(request.unwrap());
    soon(call).await.expect_err("no answer")
}
