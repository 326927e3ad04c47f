//! What the two bare proxies share: forwarding with hyper alone.

use http::{Request, Response, Uri, header, uri::Authority, uri::PathAndQuery};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    client::legacy::{Client, Error as ClientError, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use tokio::net::TcpStream;

/// A client with a pool of connections.
pub fn client() -> Client<HttpConnector, Incoming> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new()).build(connector)
}

/// Forwards all requests of a connection to `upstream`.
pub async fn serve(
    stream: TcpStream,
    client: Client<HttpConnector, Incoming>,
    upstream: Authority,
) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let (client, upstream) = (client.clone(), upstream.clone());
        async move { forward(&client, upstream, request).await }
    });
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn forward(
    client: &Client<HttpConnector, Incoming>,
    upstream: Authority,
    mut request: Request<Incoming>,
) -> Result<Response<Incoming>, ClientError> {
    let path = request.uri().path_and_query().cloned();
    let uri = Uri::builder()
        .scheme("http")
        .authority(upstream)
        .path_and_query(path.unwrap_or_else(|| PathAndQuery::from_static("/")))
        .build()
        .expect("a scheme, an authority and a path make a URI");
    *request.uri_mut() = uri;
    request.headers_mut().remove(header::HOST);
    client.request(request).await
}
