//! The ports of emulated resources: one each, or one for all.

use std::{fmt::Write as _, net::SocketAddr, time::Duration};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use spillover_emulator::{Emulator, EmulatorService, Serving};
use tokio::{
    net::TcpListener,
    task::{AbortHandle, JoinSet},
};
use tower::Service as _;

use super::{args::EmulateArgs, file::Place};

/// Open listeners; dropping it closes them.
pub(super) struct Listening {
    lines: String,
    _serving: Vec<Serving>,
    shared: Option<AbortHandle>,
}

impl Listening {
    /// Binds all ports before any of them answers.
    pub(super) async fn start(
        emulator: &Emulator,
        places: &[Place],
        args: &EmulateArgs,
    ) -> Result<Self, String> {
        if args.shared {
            return Self::share(emulator, places, args.listen).await;
        }
        let mut listeners = Vec::with_capacity(places.len());
        let mut next = args.listen;
        for place in places {
            let address = place.listen.unwrap_or(next);
            if place.listen.is_none() && next.port() != 0 {
                let port = next.port().checked_add(1);
                next.set_port(port.ok_or("there are not enough ports after --listen")?);
            }
            listeners.push(bind(address, &place.name).await?);
        }
        let mut lines = String::new();
        let mut serving = Vec::with_capacity(places.len());
        for (place, listener) in places.iter().zip(listeners) {
            let served = emulator.serve(&place.name, listener);
            let _ = writeln!(lines, "listening on {} {}", served.endpoint(), place.description());
            serving.push(served);
        }
        let hint = serving.first().map(Serving::endpoint).zip(places.first());
        if let Some((endpoint, place)) = hint {
            lines.push_str(&place.hint(&endpoint));
        }
        Ok(Self { lines, _serving: serving, shared: None })
    }

    /// The lines to print once all listeners are bound.
    pub(super) fn lines(&self) -> &str {
        &self.lines
    }

    async fn share(
        emulator: &Emulator,
        places: &[Place],
        address: SocketAddr,
    ) -> Result<Self, String> {
        let listener = bind(address, "--listen").await?;
        let bound = listener.local_addr().map_err(|error| format!("no address: {error}"))?;
        let mut lines = String::new();
        for place in places {
            let _ = writeln!(
                lines,
                "listening on http://{bound} {} as Host: {}",
                place.description(),
                place.name
            );
        }
        let accepting = tokio::spawn(accept(emulator.service(), listener));
        Ok(Self { lines, _serving: Vec::new(), shared: Some(accepting.abort_handle()) })
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Some(accepting) = &self.shared {
            accepting.abort();
        }
    }
}

impl Place {
    fn description(&self) -> String {
        format!("{} ({}): {}", self.name, self.region, self.deployments.join(", "))
    }

    fn hint(&self, endpoint: &str) -> String {
        let Some(deployment) = self.deployments.first() else { return String::new() };
        format!("try: spillover load --endpoint {endpoint} --deployment {deployment}\n")
    }
}

/// Completes on SIGINT or SIGTERM, which have no other effect from the call on.
pub(super) fn stop_signal() -> Result<impl Future<Output = ()>, String> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let wrong = |error| format!("cannot register signal handlers: {error}");
        let mut terminate = signal(SignalKind::terminate()).map_err(wrong)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(wrong)?;
        Ok(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
    }
    #[cfg(not(unix))]
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
    })
}

async fn bind(address: SocketAddr, name: &str) -> Result<TcpListener, String> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| {
        format!("{name} cannot listen on {address}: {error}: choose another address, or port 0")
    })
}

/// Serves all resources on one listener, by `Host`; a scripted reset closes the connection.
async fn accept(service: EmulatorService, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else {
            // Most likely out of descriptors, until other connections end.
            let mut ticks = tokio::time::interval(ACCEPT_PAUSE);
            ticks.tick().await;
            ticks.tick().await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let service = service.clone();
        connections.spawn(async move {
            let answer = service_fn(move |request| service.clone().call(request));
            let connection = auto::Builder::new(TokioExecutor::new());
            let _ = connection.serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
