//! The same proxy, built as the gateway is: a runtime and a client per core, and jemalloc.

use std::{env, error::Error, thread};

use http::uri::Authority;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Builder,
    sync::mpsc,
};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let usage = "proxy-per-core ADDRESS UPSTREAM";
    let listener = TcpListener::bind(args.next().ok_or(usage)?).await?;
    let upstream: Authority = args.next().ok_or(usage)?.parse()?;
    let cores = thread::available_parallelism()?.get();
    let workers: Vec<_> = (0..cores).map(|_| worker(upstream.clone())).collect();
    for worker in workers.iter().cycle() {
        let (stream, _) = listener.accept().await?;
        worker.send(stream.into_std()?)?;
    }
    Ok(())
}

/// A thread that serves the connections that it is sent.
fn worker(upstream: Authority) -> mpsc::UnboundedSender<std::net::TcpStream> {
    let (sender, mut streams) = mpsc::unbounded_channel();
    thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let client = gateway_bench::client();
            while let Some(stream) = streams.recv().await {
                let Ok(stream) = TcpStream::from_std(stream) else { continue };
                tokio::spawn(gateway_bench::serve(stream, client.clone(), upstream.clone()));
            }
        });
    });
    sender
}
