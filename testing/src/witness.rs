//! A server that records request heads, authority included, and sends scripted answers.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Request, Response, request::Parts};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{net::TcpListener, task::JoinHandle};

/// A running server. Dropping it stops accepting.
pub struct Witness {
    pub addr: SocketAddr,
    heads: Heads,
    task: JoinHandle<()>,
}

type Heads = Arc<Mutex<Vec<Parts>>>;

impl Witness {
    /// Answers the requests, counted from 0, with `answer`, each after its body has arrived.
    pub async fn start(
        answer: impl Fn(usize) -> Response<Full<Bytes>> + Clone + Send + 'static,
    ) -> Self {
        Self::listen(answer, true).await
    }

    /// Answers as soon as the head has arrived, and never reads a body.
    pub async fn hasty(
        answer: impl Fn(usize) -> Response<Full<Bytes>> + Clone + Send + 'static,
    ) -> Self {
        Self::listen(answer, false).await
    }

    /// The heads of all requests so far.
    pub fn heads(&self) -> Vec<Parts> {
        self.heads.lock().expect("no test panics in here").clone()
    }

    async fn listen(
        answer: impl Fn(usize) -> Response<Full<Bytes>> + Clone + Send + 'static,
        reads: bool,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let heads = Heads::default();
        let noted = Arc::clone(&heads);
        Self {
            addr: listener.local_addr().expect("it is bound"),
            heads,
            task: tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let (noted, answer) = (Arc::clone(&noted), answer.clone());
                    let service = service_fn(move |request: Request<Incoming>| {
                        let (head, body) = request.into_parts();
                        let response = {
                            let mut noted = noted.lock().expect("no test panics in here");
                            noted.push(head);
                            answer(noted.len() - 1)
                        };
                        async move {
                            if reads {
                                let _ = body.collect().await;
                            }
                            Ok::<_, Infallible>(response)
                        }
                    });
                    tokio::spawn(async move {
                        let server = auto::Builder::new(TokioExecutor::new());
                        // Tests check the end of a connection at the client.
                        let _ = server.serve_connection(TokioIo::new(stream), service).await;
                    });
                }
            }),
        }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.task.abort();
    }
}
