//! A reverse proxy of hyper alone: the minimum cost of any proxy built on it.

use std::{env, error::Error};

use http::uri::Authority;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let listener = TcpListener::bind(args.next().ok_or("proxy ADDRESS UPSTREAM")?).await?;
    let upstream: Authority = args.next().ok_or("proxy ADDRESS UPSTREAM")?.parse()?;
    let client = gateway_bench::client();
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(gateway_bench::serve(stream, client.clone(), upstream.clone()));
    }
}
