//! A timeout for the whole process of connecting to a backend.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use tower::Service;

use crate::{http_client::BoxError, serve::clock};

/// A connector that gives up after a time, whatever it is waiting for: name resolution, a
/// connection, or a TLS handshake. Fails with a connection error.
#[derive(Clone, Debug)]
pub(super) struct ConnectTimeout<C> {
    connector: C,
    longest: Duration,
}

impl<C> ConnectTimeout<C> {
    pub(super) const fn new(connector: C, longest: Duration) -> Self {
        Self { connector, longest }
    }
}

impl<C> Service<Uri> for ConnectTimeout<C>
where
    C: Service<Uri, Error = BoxError>,
    C::Future: Send + 'static,
    C::Response: 'static,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<C::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.connector.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = clock::timeout(self.longest, self.connector.call(uri));
        Box::pin(async {
            let late = |_| Err(io::Error::from(io::ErrorKind::TimedOut).into());
            connecting.await.unwrap_or_else(late)
        })
    }
}
