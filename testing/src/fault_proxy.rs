//! A TCP proxy that disturbs its first connection, and counts.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinHandle,
};

use crate::real::pause;

/// What happens to the answers on the first connection; later connections work.
#[derive(Clone, Copy, Debug)]
pub enum Spoil {
    Nothing,
    /// Delayed by this time.
    Delay(Duration),
    /// One byte at a time.
    Trickle,
    /// A reset (RST) after this many bytes.
    ResetAfter(usize),
    /// The end (FIN) after this many bytes, while requests are still accepted.
    HalfCloseAfter(usize),
    /// Stalls after this many bytes.
    StallAfter(usize),
}

/// A running proxy. Dropping it stops accepting.
pub struct Proxy {
    pub addr: SocketAddr,
    counters: Arc<Counters>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Counters {
    connections: AtomicUsize,
    uploaded: AtomicUsize,
}

impl Proxy {
    pub async fn to(upstream: SocketAddr, spoil: Spoil) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let counters = Arc::<Counters>::default();
        Self {
            addr: listener.local_addr().expect("it is bound"),
            task: tokio::spawn(accept(listener, upstream, spoil, Arc::clone(&counters))),
            counters,
        }
    }

    /// The connections accepted so far.
    pub fn connections(&self) -> usize {
        self.counters.connections.load(Relaxed)
    }

    /// The request bytes forwarded so far.
    pub fn uploaded(&self) -> usize {
        self.counters.uploaded.load(Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(
    listener: TcpListener,
    upstream: SocketAddr,
    spoil: Spoil,
    counters: Arc<Counters>,
) {
    while let Ok((client, _)) = listener.accept().await {
        let first = counters.connections.fetch_add(1, Relaxed) == 0;
        let spoil = if first { spoil } else { Spoil::Nothing };
        // Tests check the end of a connection at the client.
        tokio::spawn(connection(client, upstream, spoil, Arc::clone(&counters)));
    }
}

async fn connection(
    client: TcpStream,
    upstream: SocketAddr,
    spoil: Spoil,
    counters: Arc<Counters>,
) -> io::Result<()> {
    let server = TcpStream::connect(upstream).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let upload = tokio::spawn(upload(from_client, to_server, counters));
    let result = download(from_server, to_client, spoil).await;
    if !matches!(spoil, Spoil::HalfCloseAfter(_)) {
        upload.abort();
    }
    result
}

async fn upload(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    counters: Arc<Counters>,
) -> io::Result<()> {
    let mut buffer = [0; 16 << 10];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
        counters.uploaded.fetch_add(read, Relaxed);
    }
}

async fn download(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, spoil: Spoil) -> io::Result<()> {
    let limit = match spoil {
        Spoil::ResetAfter(bytes) | Spoil::HalfCloseAfter(bytes) | Spoil::StallAfter(bytes) => bytes,
        Spoil::Nothing | Spoil::Delay(_) | Spoil::Trickle => usize::MAX,
    };
    let (mut buffer, mut passed) = ([0; 16 << 10], 0);
    while passed < limit {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        let answer = &buffer[..read.min(limit - passed)];
        passed += answer.len();
        match spoil {
            Spoil::Trickle => {
                for byte in answer {
                    to.write_all(&[*byte]).await?;
                    tokio::task::yield_now().await;
                }
            }
            Spoil::Delay(delay) => {
                pause(delay.as_millis() as u64).await;
                to.write_all(answer).await?;
            }
            _ => to.write_all(answer).await?,
        }
    }
    match spoil {
        Spoil::ResetAfter(_) => {
            // Let the client read what was forwarded before the reset overtakes it.
            pause(10).await;
            to.as_ref().set_zero_linger()
        }
        Spoil::HalfCloseAfter(_) => to.shutdown().await,
        _ => std::future::pending().await,
    }
}
