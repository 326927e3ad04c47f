//! A TCP proxy whose disturbance changes while it runs.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

use crate::real::pause;

/// What happens to all connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Line {
    #[default]
    Works,
    /// Answers come this much later.
    IsSlow(Duration),
    /// Requests arrive, and their answers are lost.
    LosesAnswers,
    /// Nothing is read any more, in either direction; connections stay, and new ones are accepted.
    IsDead,
}

/// A running proxy. Dropping it stops accepting.
#[derive(Debug)]
pub struct SwitchProxy {
    pub addr: SocketAddr,
    line: watch::Sender<Line>,
    /// Changes when all connections are to be cut.
    cuts: watch::Sender<u32>,
    task: JoinHandle<()>,
}

impl SwitchProxy {
    pub async fn to(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let (line, cuts) = (watch::Sender::default(), watch::Sender::default());
        let (lines, cut) = (line.subscribe(), cuts.subscribe());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connection(client, upstream, lines.clone(), cut.clone()));
            }
        });
        Self { addr, line, cuts, task }
    }

    /// From now on.
    pub fn becomes(&self, line: Line) {
        self.line.send_replace(line);
    }

    /// Ends the connections that exist.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

impl Drop for SwitchProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connection(
    client: TcpStream,
    upstream: SocketAddr,
    line: watch::Receiver<Line>,
    mut cut: watch::Receiver<u32>,
) {
    let Ok(server) = TcpStream::connect(upstream).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    cut.mark_unchanged();
    tokio::select! {
        () = pass(from_client, to_server, line.clone(), false) => {}
        () = pass(from_server, to_client, line, true) => {}
        _ = cut.changed() => {}
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut line: watch::Receiver<Line>,
    is_answer: bool,
) {
    let mut buffer = [0; 16 << 10];
    loop {
        if line.wait_for(|line| *line != Line::IsDead).await.is_err() {
            return;
        }
        let read = tokio::select! {
            read = from.read(&mut buffer) => read.unwrap_or(0),
            _ = line.changed() => continue,
        };
        if read == 0 {
            return;
        }
        let line = *line.borrow();
        match line {
            Line::LosesAnswers if is_answer => continue,
            Line::IsSlow(time) if is_answer => pause(time.as_millis() as u64).await,
            _ => {}
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
