//! Serves one inbound connection: HTTP/1.1 or HTTP/2, with idle timeouts and an orderly end.

use std::{convert::Infallible, future::poll_fn, pin::pin, sync::Arc, task::Poll, time::Instant};

use futures::{FutureExt, future::OptionFuture};
use http::{HeaderValue, Request, header};
use hyper::{body::Incoming, service::service_fn};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};

use super::{
    client_socket::ClientSocket,
    listener_role::ListenerRole,
    protocol::{Http, Protocol},
    proxy,
    silence::{End, Silence},
    streams::Streams,
    watched::Watched,
    woken::Woken,
};
use crate::serve::{
    activity::{Activity, Tunnel},
    clock,
    delivery::Delivering,
};

/// Serves a connection until it ends, its client disconnects or is silent for too long, or until
/// its requests are done after `stop` turned true or the client's certificate expired.
///
/// `client` is the socket beneath `io`.
pub(crate) async fn serve<I>(
    role: ListenerRole,
    io: I,
    client: ClientSocket,
    protocol: Protocol,
    accepted: Instant,
    mut stop: watch::Receiver<bool>,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = role.gateway.runtime().config().limits.clone();
    let activity = Arc::new(Activity::default());
    let io = Watched::new(io, Arc::clone(&activity));
    let peer = role.peer.clone();
    let mut expiry = peer.as_ref().map(|peer| Box::pin(peer.expired()));
    let service = {
        let activity = Arc::clone(&activity);
        service_fn(move |request: Request<Incoming>| {
            // Count the request right away: hyper reads on before it polls the answer's future.
            let busy = Arc::clone(&activity).begin(request.version());
            // Boxed on its own, so that none of it is kept while the answer streams.
            let answer = Box::pin(proxy::answer(role.clone(), busy, request));
            let activity = Arc::clone(&activity);
            answer.map(move |mut response| {
                if activity.is_last_exchange() {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(header::CONNECTION, close);
                }
                Ok::<_, Infallible>(response)
            })
        })
    };
    let streams = Streams::new(Arc::clone(&activity), limits.idle_timeout);
    let connection = Http::new(io, service, protocol, &limits, streams);
    let delivering = Delivering::new(connection, activity.delivery(), limits.idle_timeout);
    let mut connection = pin!(delivering);
    let spent = clock::now().saturating_duration_since(accepted);
    let mut silence = Silence::new(&activity, &limits, spent);
    let mut reset = pin!(client.reset());
    let mut finished = pin!(client.finished().fuse());
    let mut is_stopping = false;
    loop {
        let beside = async {
            tokio::select! {
                biased;
                () = reset.as_mut() => Event::Reset,
                () = finished.as_mut() => Event::Finished,
                () = poll_fn(|cx| activity.poll_upload_rest(cx)) => Event::RestDiscarded,
                _ = stop.wait_for(|stop| *stop), if !silence.is_stopping() => Event::Stop,
                Some(()) = OptionFuture::from(expiry.as_mut()), if !is_stopping => Event::Expired,
                end = silence.next() => Event::Silent(end),
            }
        };
        let event = {
            let mut beside = pin!(Woken::new(beside));
            let event = poll_fn(|cx| match connection.as_mut().poll(cx) {
                Poll::Ready(_) => Poll::Ready(Event::Over),
                Poll::Pending => beside.as_mut().poll(cx),
            });
            event.await
        };
        match event {
            Event::Over => break,
            // Drops the requests in flight; HTTP/2 streams end with their connection.
            Event::Reset | Event::Silent(End::Now) => break drop(activity.take_tunnel()),
            Event::Finished => activity.note_finished(),
            Event::RestDiscarded => {}
            Event::Silent(End::Orderly) if is_stopping => {}
            event @ (Event::Stop | Event::Expired | Event::Silent(End::Orderly)) => {
                is_stopping = true;
                if matches!(event, Event::Stop) {
                    silence.stop();
                }
                connection.as_mut().inner().shut_down();
            }
        }
    }
    if let Some(Tunnel(tunnel)) = activity.take_tunnel() {
        tunnel.await;
    }
}

/// What happened to a connection.
enum Event {
    /// It has ended.
    Over,
    Reset,
    Finished,
    /// The rest of a body was discarded.
    RestDiscarded,
    Stop,
    /// The client's certificate has expired.
    Expired,
    Silent(End),
}
