//! Connects to the first address of a name that answers (RFC 8305, "Happy Eyeballs").

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use http::{Uri, uri::Scheme};
use hyper_util::{
    client::legacy::connect::{
        HttpConnector,
        dns::{GaiResolver, Name},
    },
    rt::TokioIo,
};
use tokio::net::TcpStream;
use tower::{Service, ServiceExt};

use crate::http_client::BoxError;

/// A TCP connector. Every connection resolves its name again. If an address does not answer, the
/// next one is tried after a short delay, whatever its family; hyper's own connector would wait for
/// a share of the timeout before it tried another address of the same family.
#[derive(Clone, Debug)]
pub(super) struct Addresses<R = GaiResolver> {
    resolver: R,
    /// For a single address.
    tcp: HttpConnector,
}

impl Addresses {
    pub(super) fn new(tcp: HttpConnector) -> Self {
        Self { resolver: GaiResolver::new(), tcp }
    }
}

impl<R> Service<Uri> for Addresses<R>
where
    R: Service<Name> + Clone + Send + 'static,
    R::Response: Iterator<Item = SocketAddr> + Send,
    R::Error: Into<BoxError>,
    R::Future: Send,
{
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Self { resolver, tcp } = self.clone();
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        if host.parse::<IpAddr>().is_ok() {
            return Box::pin(async { Ok(tcp.oneshot(uri).await?) });
        }
        let port = uri.port_u16().unwrap_or_else(|| default_port(&uri));
        Box::pin(async move {
            let name = host.parse::<Name>().map_err(|_| invalid("not a name"))?;
            let found = resolver.oneshot(name).await.map_err(|error| {
                format!("the name {host:?} cannot be resolved: {}", error.into())
            })?;
            first(&tcp, interleaved(found), port).await
        })
    }
}

/// The first connection to be established. The next address is tried when one fails, or does not
/// answer.
async fn first(
    tcp: &HttpConnector,
    mut addresses: VecDeque<IpAddr>,
    port: u16,
) -> Result<TokioIo<TcpStream>, BoxError> {
    let mut attempts = FuturesUnordered::new();
    let mut failure: BoxError = invalid("the name has no address").into();
    loop {
        if let Some(address) = addresses.pop_front() {
            let address = SocketAddr::new(address, port);
            attempts.push(tcp.clone().oneshot(format!("http://{address}/").parse::<Uri>()?));
        }
        let next = async {
            match addresses.is_empty() {
                true => std::future::pending().await,
                #[expect(clippy::disallowed_methods, reason = "between two addresses of one name")]
                false => tokio::time::sleep(ATTEMPT_DELAY).await,
            }
        };
        tokio::select! {
            attempt = attempts.next() => match attempt {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(error)) => failure = error.into(),
                // All addresses have failed.
                None => return Err(failure),
            },
            () = next => {}
        }
    }
}

/// In order, but alternating between the two families.
fn interleaved(addresses: impl Iterator<Item = SocketAddr>) -> VecDeque<IpAddr> {
    let addresses: Vec<IpAddr> = addresses.take(MAX_ADDRESSES).map(|it| it.ip()).collect();
    let is_first_v6 = addresses.first().is_some_and(IpAddr::is_ipv6);
    let (first, other): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == is_first_v6);
    let (mut first, mut other) = (first.into_iter(), other.into_iter());
    let mut mixed = VecDeque::new();
    loop {
        let before = mixed.len();
        mixed.extend(first.next());
        mixed.extend(other.next());
        if mixed.len() == before {
            return mixed;
        }
    }
}

fn default_port(uri: &Uri) -> u16 {
    if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 }
}

fn invalid(problem: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, problem)
}

/// RFC 8305's recommendation (section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
const MAX_ADDRESSES: usize = 32;

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::ready, net::Ipv4Addr, vec};

    use tokio::net::{TcpListener, TcpSocket};
    use tower::service_fn;

    use super::*;

    fn connector(
        addresses: Vec<IpAddr>,
    ) -> Addresses<
        impl Service<Name, Response = vec::IntoIter<SocketAddr>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static,
    > {
        let found: Vec<_> = addresses.into_iter().map(|it| SocketAddr::new(it, 0)).collect();
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(Duration::from_secs(60)));
        Addresses { resolver: service_fn(move |_| ready(Ok(found.clone().into_iter()))), tcp }
    }

    #[test]
    fn families_take_turns_and_the_order_within_one_stays() {
        let addresses = ["::1", "::2", "::3", "10.0.0.1"].map(|it| it.parse::<IpAddr>().unwrap());
        let found = addresses.iter().map(|it| SocketAddr::new(*it, 0));
        let [a, b, c, d] = addresses;
        assert_eq!(interleaved(found), [a, d, b, c]);
        assert!(interleaved(std::iter::empty()).is_empty());
    }

    #[tokio::test]
    async fn an_address_that_refuses_is_passed_over_and_the_last_failure_is_told() {
        let live = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = live.local_addr().unwrap().port();
        let uri: Uri = format!("http://two.example:{port}/").parse().unwrap();
        let (dead, alive) = (Ipv4Addr::new(127, 0, 0, 9).into(), Ipv4Addr::LOCALHOST.into());
        let stream = connector(vec![dead, alive]).oneshot(uri.clone()).await.unwrap();
        assert_eq!(stream.inner().peer_addr().unwrap().ip(), alive);
        let error = connector(vec![dead, dead]).oneshot(uri.clone()).await.unwrap_err();
        assert!(crate::http_client::chain(&*error).contains("refused"), "{error:?}");
        let error = connector(vec![]).oneshot(uri).await.unwrap_err();
        assert!(error.to_string().contains("no address"), "{error}");
    }

    /// A socket with a full backlog neither accepts nor refuses connections, like an unreachable
    /// host.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn an_address_that_says_nothing_costs_a_moment_and_not_the_timeout() {
        let live = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = live.local_addr().unwrap().port();
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 8], port))).unwrap();
        let silent = socket.listen(0).unwrap();
        let _queue = TcpStream::connect(silent.local_addr().unwrap()).await.unwrap();
        let uri: Uri = format!("http://two.example:{port}/").parse().unwrap();
        let (dead, alive) = (Ipv4Addr::new(127, 0, 0, 8).into(), Ipv4Addr::LOCALHOST.into());
        let connecting = connector(vec![dead, alive]).oneshot(uri);
        #[expect(clippy::disallowed_methods, reason = "sockets are real")]
        let stream = tokio::time::timeout(Duration::from_secs(10), connecting).await;
        let stream = stream.expect("long before the timeout of a minute").unwrap();
        assert_eq!(stream.inner().peer_addr().unwrap().ip(), alive);
    }
}
