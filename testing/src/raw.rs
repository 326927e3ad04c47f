//! A server that sends exactly the given bytes, and never closes a connection first.

use std::{future, net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

/// A running server. Dropping it closes all connections.
pub struct Raw {
    pub addr: SocketAddr,
    task: JoinHandle<()>,
}

impl Raw {
    /// Answers the first request of connection `n` with `answers[n]`, later connections with the
    /// last of them, as soon as the request's head has arrived. Does not read anything after the
    /// head.
    pub async fn saying<const N: usize>(answers: [impl Into<Vec<u8>>; N]) -> Self {
        let answers: Arc<[Vec<u8>]> = answers.into_iter().map(Into::into).collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let turn = connections.len().min(answers.len() - 1);
                connections.spawn(answer(stream, Arc::clone(&answers), turn));
            }
        });
        Self { addr, task }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(mut stream: TcpStream, answers: Arc<[Vec<u8>]>, turn: usize) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    let _ = stream.write_all(&answers[turn]).await;
    future::pending().await
}
