//! The HTTP client for backends, with its timeouts.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Request, Response, Uri, header, uri::Scheme};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        self, Client,
        connect::{CaptureConnection, HttpConnector, capture_connection},
    },
    rt::{TokioExecutor, TokioTimer},
};
use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower::Service;
use tower_spillover::{backend::OnConnect, policy::SentAgain};

use super::{
    client_pool::{ClientPool, Download, StreamPermit},
    connect_timeout::ConnectTimeout,
    error::UpstreamError,
    preface,
    request_body::RequestBody,
    reuse::WatchReuse,
    upload_progress::UploadProgress,
};
use crate::{
    config::{self, HeadTimeout, Http2},
    dial::{Dialer, EnvironmentProxies, Proxies},
    serve::{clock, workers},
    telemetry::{Call, Trace},
    tls_roots,
};

/// Marks a request that opens a WebSocket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpensSession;

/// Sends one attempt to one backend. Clones share its connections. Does not follow redirects.
///
/// Each request clones the layers, and with them several of these.
#[derive(Clone, Debug)]
pub(crate) struct UpstreamClient {
    connections: Arc<Connections>,
    head_timeout: HeadTimeout,
}

#[derive(Debug)]
struct Connections {
    /// One per serving thread, whose connections stay on that thread.
    pools: Box<[ClientPool<HttpClient>]>,
    /// Keeps no connections: each request opens a new one.
    fresh: HttpClient,
    /// The same over HTTP/1.1, so that connections can become WebSockets.
    sessions: HttpClient,
    http2: Http2,
}

type Connector = WatchReuse<ConnectTimeout<HttpsConnector<Dialer>>>;
type HttpClient = Client<Connector, RequestBody>;

impl UpstreamClient {
    /// A client without connections.
    ///
    /// # Errors
    ///
    /// If the certificates to trust cannot be read.
    pub(crate) fn new(settings: &config::Upstream) -> Result<Self, String> {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(settings.connect_timeout));
        tcp.set_keepalive(Some(KEEP_ALIVE));
        tcp.enforce_http(false);
        let trusted = Some(&*settings.trust).filter(|pem| !pem.is_empty());
        let tls =
            tls_roots::tls(trusted).map_err(|problem| format!("upstream.trust: {problem}"))?;
        let proxies = Proxies::new(settings.proxies.clone(), EnvironmentProxies::of_process());
        let dialer = Dialer::new(tcp, tls.clone(), proxies);
        let https = |tls| HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        let http_1 = https(tls.clone()).enable_http1().wrap_connector(dialer.clone());
        let connector = https(tls);
        let connector = match settings.http2 {
            Http2::Auto => connector.enable_all_versions().wrap_connector(dialer),
            Http2::Always => connector.enable_http2().wrap_connector(dialer),
            Http2::Never => connector.enable_http1().wrap_connector(dialer),
        };
        let longest = settings.connect_timeout;
        let connector = ConnectTimeout::new(connector, longest);
        let is_always_h2 = settings.http2 == Http2::Always;
        let connector = WatchReuse { connector, is_always_h2, longest };
        let (http2, idle_connections) = (settings.http2, settings.idle_connections);
        let (idle_timeout, age) = (settings.idle_connection_timeout, settings.connection_age);
        let client = move |idle_connections| {
            Client::builder(TokioExecutor::new())
                .timer(TokioTimer::new())
                .pool_timer(TokioTimer::new())
                .pool_max_idle_per_host(idle_connections)
                .pool_idle_timeout(idle_timeout)
                .http2_only(http2 == Http2::Always)
                .http2_keep_alive_interval(KEEP_ALIVE)
                .http2_keep_alive_timeout(Duration::from_secs(20))
                .build(connector.clone())
        };
        let fresh = client(0);
        let http_1 = ConnectTimeout::new(http_1, longest);
        let http_1 = WatchReuse { connector: http_1, is_always_h2: false, longest };
        let sessions =
            Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(http_1);
        let client = move || client(idle_connections);
        let pools = (0..workers::count()).map(|_| ClientPool::new(client.clone(), age)).collect();
        let connections = Arc::new(Connections { pools, fresh, sessions, http2 });
        Ok(Self { connections, head_timeout: settings.head_timeout })
    }

    /// Shares the connections.
    pub(crate) fn head_timeout(&self, head_timeout: Option<HeadTimeout>) -> Self {
        Self { head_timeout: head_timeout.unwrap_or(self.head_timeout), ..self.clone() }
    }
}

impl Connections {
    /// Whether a connection to `uri` may turn out to be HTTP/2.
    fn may_share(&self, uri: &Uri) -> bool {
        match self.http2 {
            Http2::Auto => uri.scheme() == Some(&Scheme::HTTPS),
            Http2::Always => true,
            Http2::Never => false,
        }
    }
}

impl Service<Request<RequestBody>> for UpstreamClient {
    type Response = Response<Download>;
    type Error = UpstreamError;
    type Future = Sending;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), UpstreamError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<RequestBody>) -> Sending {
        let call = Trace::call(&mut request);
        let Connections { pools, fresh, sessions, .. } = &*self.connections;
        let pool = &pools[workers::here()];
        // An unprocessed request must not meet the stream limit or the end of a connection again.
        let kept;
        let (client, permit) = if request.extensions().get::<OpensSession>().is_some() {
            let headers = request.headers_mut();
            headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            (sessions, None)
        } else if request.extensions().get::<SentAgain>().is_some() {
            (fresh, None)
        } else if self.connections.may_share(request.uri()) {
            let (client, permit) = pool.enter(clock::now());
            kept = client;
            (&**kept, Some(permit))
        } else {
            kept = pool.first(clock::now());
            (&**kept, None)
        };
        let progress = request.body_mut().watch();
        let is_stream = request.body().asks_for_stream();
        let longest = if is_stream { self.head_timeout.stream } else { self.head_timeout.whole };
        let connecting = Connecting::of(&mut request);
        Sending {
            answer: client.request(request),
            timer: clock::sleep(longest),
            progress,
            longest,
            permit,
            connecting,
            call,
        }
    }
}

pin_project! {
    /// An attempt in flight.
    pub(crate) struct Sending {
        #[pin]
        answer: legacy::ResponseFuture,
        #[pin]
        timer: Sleep,
        progress: Option<UploadProgress>,
        // How long a backend may take once it has the request.
        longest: Duration,
        permit: Option<StreamPermit>,
        // Set if the layers wait to learn that the backend can be connected to.
        connecting: Option<Box<Connecting>>,
        call: Option<Box<Call>>,
    }
}

impl Future for Sending {
    type Output = Result<Response<Download>, UpstreamError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let answer = match this.answer.poll(cx) {
            Poll::Ready(Ok(mut response)) => match settle_length(response.headers_mut()) {
                Some(()) => Ok(response.map(|body| Download::new(body, this.permit.take()))),
                None => Err(UpstreamError::TwoLengths),
            },
            Poll::Ready(Err(error)) => Err(UpstreamError::Client(error)),
            Poll::Pending => loop {
                // The connection is established once the answer's future was polled with it.
                if this.connecting.as_ref().is_some_and(|connecting| connecting.stands()) {
                    this.connecting.take().into_iter().for_each(|it| it.on_connect.connected());
                }
                ready!(this.timer.as_mut().poll(cx));
                let now = clock::now();
                let left =
                    this.progress.as_ref().and_then(|progress| progress.left(*this.longest, now));
                match left {
                    // The time was spent waiting for the client's upload; extend the timer.
                    Some(left) => this.timer.as_mut().reset((now + left).into()),
                    None => break Err(UpstreamError::Silent),
                }
            },
        };
        if let Some(call) = this.call.take() {
            let answer = answer.as_ref().map(|answer| (answer.status(), answer.version()));
            call.end(answer.map_err(UpstreamError::kind));
        }
        Poll::Ready(answer)
    }
}

/// Reduces repeated equal lengths to one (RFC 9110 section 8.6); `None` if they differ, are not
/// numbers, or appear with a `transfer-encoding`.
fn settle_length(headers: &mut HeaderMap) -> Option<()> {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let (Some(first), others) = (values.next(), values.next().is_some()) else { return Some(()) };
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return None;
    }
    if !others && first.as_bytes().iter().all(u8::is_ascii_digit) && !first.is_empty() {
        return Some(());
    }
    let mut length = None;
    for value in headers.get_all(header::CONTENT_LENGTH) {
        for said in value.to_str().ok()?.split(',').map(str::trim) {
            let is_number = !said.is_empty() && said.bytes().all(|byte| byte.is_ascii_digit());
            let said = said.parse::<u64>().ok().filter(|_| is_number)?;
            if length.replace(said).is_some_and(|known| known != said) {
                return None;
            }
        }
    }
    headers.insert(header::CONTENT_LENGTH, length?.into());
    Some(())
}

/// Detects when a request has a connection, for the layers that wait for one.
struct Connecting {
    connection: CaptureConnection,
    on_connect: OnConnect,
}

impl Connecting {
    fn of(request: &mut Request<RequestBody>) -> Option<Box<Self>> {
        let on_connect = request.extensions_mut().remove()?;
        Some(Box::new(Self { connection: capture_connection(request), on_connect }))
    }

    fn stands(&self) -> bool {
        // On HTTP/2, a server that accepted the connection but sent nothing does not count.
        self.connection.connection_metadata().as_ref().is_some_and(|it| !preface::is_awaited(it))
    }
}

const KEEP_ALIVE: Duration = Duration::from_secs(30);
