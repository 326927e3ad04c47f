//! A reverse proxy of hyper alone: the minimum cost of any proxy built on it.

use std::{env, error::Error};

use http::{Request, Response, Uri, header, uri::PathAndQuery};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    client::legacy::{Client, Error as ClientError, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let listener = TcpListener::bind(args.next().ok_or("proxy ADDRESS UPSTREAM")?).await?;
    let upstream: http::uri::Authority = args.next().ok_or("proxy ADDRESS UPSTREAM")?.parse()?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new()).build(connector);
    loop {
        let (stream, _) = listener.accept().await?;
        let _ = stream.set_nodelay(true);
        let (client, upstream) = (client.clone(), upstream.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let (client, upstream) = (client.clone(), upstream.clone());
                async move { forward(&client, upstream, request).await }
            });
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn forward(
    client: &Client<HttpConnector, Incoming>,
    upstream: http::uri::Authority,
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
