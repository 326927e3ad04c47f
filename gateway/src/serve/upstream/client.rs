//! The client that reaches the backends, with its timeouts.

use std::{
    error::Error,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{Request, Response, Uri, uri::Scheme};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower::Service;

use super::{
    client_pool::{Download, Lanes, Place},
    request_body::{Upload, UploadError},
    upload_progress::Turn,
};
use crate::{
    config::{self, Http2},
    serve::{clock, workers},
    telemetry::{Call, Trace},
    tls_roots,
};

/// A service for one attempt at one backend. Clones share its connections. It follows no redirect.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    /// One for each thread that serves, whose connections are served there.
    lanes: Arc<[Lanes<HttpClient>]>,
    http2: Http2,
    head_timeout: Duration,
}

type HttpClient = Client<HttpsConnector<HttpConnector>, Upload>;

/// Why an attempt has no answer.
#[derive(Debug)]
pub(crate) enum UpstreamError {
    Client(legacy::Error),
    /// No head of an answer came in time.
    Silent,
}

impl Upstream {
    /// A client without connections.
    ///
    /// # Errors
    ///
    /// When the certificates to trust cannot be read.
    pub(crate) fn new(settings: &config::Upstream) -> Result<Self, String> {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(settings.connect_timeout));
        tcp.set_keepalive(Some(KEEP_ALIVE));
        tcp.enforce_http(false);
        let trusted = Some(&*settings.trust).filter(|pem| !pem.is_empty());
        let tls =
            tls_roots::tls(trusted).map_err(|problem| format!("upstream.trust: {problem}"))?;
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        let connector = match settings.http2 {
            Http2::Auto => connector.enable_all_versions().wrap_connector(tcp),
            Http2::Always => connector.enable_http2().wrap_connector(tcp),
            Http2::Never => connector.enable_http1().wrap_connector(tcp),
        };
        let (http2, idle_connections) = (settings.http2, settings.idle_connections);
        let client = move || {
            Client::builder(TokioExecutor::new())
                .timer(TokioTimer::new())
                .pool_timer(TokioTimer::new())
                .pool_max_idle_per_host(idle_connections)
                // Azure's front ends close idle connections after four minutes.
                .pool_idle_timeout(Duration::from_secs(90))
                .http2_only(http2 == Http2::Always)
                .http2_keep_alive_interval(KEEP_ALIVE)
                .http2_keep_alive_timeout(Duration::from_secs(20))
                .build(connector.clone())
        };
        let lanes = (0..workers::count()).map(|_| Lanes::new(client.clone())).collect();
        Ok(Self { lanes, http2, head_timeout: settings.head_timeout })
    }

    /// Whether a connection to `uri` may turn out to be an HTTP/2 one.
    fn may_share_connections(&self, uri: &Uri) -> bool {
        match self.http2 {
            Http2::Auto => uri.scheme() == Some(&Scheme::HTTPS),
            Http2::Always => true,
            Http2::Never => false,
        }
    }
}

impl UpstreamError {
    /// Whether the backend cannot have seen the request.
    pub(crate) fn is_connect(&self) -> bool {
        matches!(self, Self::Client(error) if error.is_connect())
    }

    /// Whether the connection to the backend broke before it answered, by no fault of the client.
    pub(crate) fn is_reset(&self) -> bool {
        matches!(self, Self::Client(error) if !error.is_connect())
            && self.cause::<UploadError>().is_none()
    }

    /// In a word, as traces have it.
    fn kind(&self) -> &'static str {
        match self {
            Self::Client(error) if error.is_connect() => "connect",
            Self::Client(_) => "broken",
            Self::Silent => "timeout",
        }
    }

    /// The first cause of the type `T`.
    pub(crate) fn cause<T: Error + 'static>(&self) -> Option<&T> {
        let mut next: Option<&(dyn Error + 'static)> = match self {
            Self::Client(error) => Some(error),
            Self::Silent => None,
        };
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            next = error.source();
        }
        None
    }
}

impl Service<Request<Upload>> for Upstream {
    type Response = Response<Download>;
    type Error = UpstreamError;
    type Future = Sending;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), UpstreamError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Upload>) -> Sending {
        let call = Trace::call(&mut request);
        let lanes = &self.lanes[workers::here()];
        let (client, place) = if self.may_share_connections(request.uri()) {
            let (client, place) = lanes.enter();
            (client, Some(place))
        } else {
            (lanes.first(), None)
        };
        let (turn, longest) = (request.body_mut().watch(), self.head_timeout);
        Sending {
            answer: client.request(request),
            timer: clock::sleep(longest),
            turn,
            longest,
            place,
            call,
        }
    }
}

pin_project! {
    /// An attempt under way.
    pub(crate) struct Sending {
        #[pin]
        answer: legacy::ResponseFuture,
        #[pin]
        timer: Sleep,
        turn: Option<Turn>,
        // How long a backend may take once it has the request.
        longest: Duration,
        place: Option<Place>,
        call: Option<Box<Call>>,
    }
}

impl Future for Sending {
    type Output = Result<Response<Download>, UpstreamError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let answer = match this.answer.poll(cx) {
            Poll::Ready(Ok(response)) => {
                Ok(response.map(|body| Download::new(body, this.place.take())))
            }
            Poll::Ready(Err(error)) => Err(UpstreamError::Client(error)),
            Poll::Pending => loop {
                ready!(this.timer.as_mut().poll(cx));
                let now = clock::now();
                let left = this.turn.as_ref().and_then(|turn| turn.left(*this.longest, now));
                match left {
                    // It was the client that took so long.
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

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(error) => error.fmt(f),
            Self::Silent => f.write_str("no answer in time"),
        }
    }
}

impl Error for UpstreamError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Client(error) => error.source(),
            Self::Silent => None,
        }
    }
}

const KEEP_ALIVE: Duration = Duration::from_secs(30);
