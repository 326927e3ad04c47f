//! A ready service that parks what it is given, so that no request is built while measuring.

use std::{
    cell::Cell,
    convert::Infallible,
    future::{Ready, ready},
    pin::pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::task::noop_waker_ref;
use http::{Extensions, HeaderMap, HeaderValue, Request, Response, StatusCode, request};
use http_body_util::Full;
use tower::Service;

/// A ready service: parks the head of each request and answers with a parked head.
#[derive(Clone)]
pub struct Leaf {
    status: StatusCode,
    parked: Rc<Parked>,
}

/// The parts that circulate between a caller and its leaves.
pub struct Parked {
    request: Cell<Option<request::Parts>>,
    response: Cell<Option<(HeaderMap, Extensions)>>,
    /// Cloned if a request reached no leaf, so that nothing is parked.
    template: request::Parts,
    body: Bytes,
    refusal: HeaderMap,
    /// Whether responses have extensions, like those of hyper-util's client.
    extended: bool,
}

/// What a connection's client attaches to every response.
#[derive(Clone)]
struct Connected;

impl Leaf {
    /// A leaf that answers 200, over a request of 12 headers and 2 KiB.
    pub fn new() -> Self {
        Self::with(false)
    }

    /// The same, with an extension on every response.
    pub fn extended() -> Self {
        Self::with(true)
    }

    /// The same leaf, answering 429. Clones the head of a refusal, since a layer that moves on
    /// drops it.
    pub fn refusing(&self) -> Self {
        Self { status: StatusCode::TOO_MANY_REQUESTS, ..self.clone() }
    }

    pub fn parked(&self) -> Rc<Parked> {
        Rc::clone(&self.parked)
    }

    fn with(extended: bool) -> Self {
        let head = [
            ("content-type", "application/json"),
            ("x-ms-region", "Sweden Central"),
            ("apim-request-id", "4b0a8a5c-9bdb-4a0b-8f2a-0d7a0f9c6d2e"),
            ("x-ratelimit-remaining-tokens", "119000"),
        ];
        let refusal = [
            ("content-type", "application/json"),
            ("retry-after", "60"),
            ("retry-after-ms", "60000"),
        ];
        let parked = Parked {
            request: Cell::new(None),
            response: Cell::new(Some((headers(&head), Extensions::new()))),
            template: template(),
            body: Bytes::from(vec![b'x'; 2 << 10]),
            refusal: headers(&refusal),
            extended,
        };
        Self { status: StatusCode::OK, parked: Rc::new(parked) }
    }
}

impl<B> Service<Request<B>> for Leaf {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (mut head, _) = request.into_parts();
        head.extensions = Extensions::new();
        self.parked.request.set(Some(head));
        let mut response = Response::new(Full::default());
        *response.status_mut() = self.status;
        if self.status == StatusCode::OK
            && let Some((headers, extensions)) = self.parked.response.take()
        {
            *response.headers_mut() = headers;
            *response.extensions_mut() = extensions;
        } else {
            *response.headers_mut() = self.parked.refusal.clone();
        }
        if self.parked.extended {
            response.extensions_mut().get_or_insert(Connected);
        }
        ready(Ok(response))
    }
}

impl Parked {
    /// The request to send.
    pub fn request(&self) -> Request<Full<Bytes>> {
        let parts = self.request.take().unwrap_or_else(|| self.template.clone());
        Request::from_parts(parts, Full::new(self.body.clone()))
    }

    /// The same, with the path it had before a backend's deployment was written into it.
    pub fn restored_request(&self) -> Request<Full<Bytes>> {
        let mut request = self.request();
        *request.uri_mut() = self.template.uri.clone();
        request
    }

    /// Takes a response back. Clears its extensions or, if the leaf attaches one, keeps that and
    /// removes the layers'.
    pub fn reclaim<B>(&self, response: Response<B>) {
        let (head, _) = response.into_parts();
        if head.status != StatusCode::OK {
            return;
        }
        let mut extensions = head.extensions;
        if self.extended {
            extensions.remove::<tower_spillover::Served>();
        } else {
            extensions = Extensions::new();
        }
        self.response.set(Some((head.headers, extensions)));
    }
}

/// Readies `service`, calls it, and polls the answer, which has to be ready immediately.
pub fn send<S, B, R>(service: &mut S, request: Request<B>) -> Response<R>
where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible>,
{
    let mut cx = Context::from_waker(noop_waker_ref());
    assert!(service.poll_ready(&mut cx).is_ready(), "a leaf is always ready");
    let Poll::Ready(Ok(response)) = pin!(service.call(request)).poll(&mut cx) else {
        panic!("a path that waits cannot be measured here")
    };
    response
}

/// The head of a chat completion as a client sends it to a gateway.
pub fn template() -> request::Parts {
    let lines = [
        ("host", "gateway.contoso.example"),
        ("content-type", "application/json"),
        ("content-length", "2048"),
        ("accept", "application/json"),
        ("accept-encoding", "gzip, deflate"),
        ("api-key", "0123456789abcdef0123456789abcdef"),
        ("user-agent", "AsyncAzureOpenAI/Python 1.109.1"),
        ("x-request-id", "4b0a8a5c-9bdb-4a0b-8f2a-0d7a0f9c6d2e"),
        ("x-stainless-lang", "python"),
        ("x-stainless-retry-count", "0"),
        ("x-stainless-read-timeout", "600"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ];
    let uri = "https://gateway.contoso.example/openai/deployments/gpt-4o/chat/completions\
               ?api-version=2024-10-21";
    let mut request = Request::post(uri).body(()).expect("a valid request");
    *request.headers_mut() = headers(&lines);
    request.into_parts().0
}

/// Headers as they arrive on a connection: their values share a buffer.
fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let text: String = lines.iter().map(|&(_, value)| value).collect();
    let mut rest = Bytes::from(text);
    let pairs = lines.iter().map(|&(name, value)| {
        let value = HeaderValue::from_maybe_shared(rest.split_to(value.len()));
        (http::HeaderName::from_static(name), value.expect("a header value"))
    });
    pairs.collect()
}
