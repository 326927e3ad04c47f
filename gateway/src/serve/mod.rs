//! `spillover serve`: the gateway's server, from its sockets to the layers.

mod clock;
mod inbound;
mod lifecycle;
mod record;
mod refusal;
mod routing;
mod upstream;
mod workers;

#[cfg(test)]
mod tests;

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::{Instant, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use tokio::{sync::watch, task::JoinHandle};

pub(crate) use self::inbound::gateway::Observe;
use self::{
    inbound::{
        certificate::Certificate,
        gateway::Gateway,
        listen::Listener,
        listener_role::{Door, Pages},
    },
    lifecycle::{demo, reload::Reload, signals::End},
    upstream::stack,
    workers::Workers,
};
use crate::{
    access_record::AccessRecord,
    config::{self, Config, Entra, Hangup},
    entra,
    snapshot::Snapshot,
    telemetry::{self, Telemetry, Trace},
};

/// Serves the configuration in `file`, or without one a demonstration, until a signal ends it.
pub(crate) fn run(file: Option<&Path>, listen: Option<SocketAddr>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let served = match runtime {
        Ok(runtime) => {
            let served = runtime.block_on(serve(file, listen));
            // What did not end in the drain time is cut off.
            runtime.shutdown_background();
            served
        }
        Err(error) => Err(format!("cannot start: {error}")),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(file: Option<&Path>, listen: Option<SocketAddr>) -> Result<(), String> {
    // Before anything else: a signal that nobody hears ends the process.
    let mut end = End::new().map_err(|error| format!("cannot hear signals: {error}"))?;
    let (mut config, source) = Source::open(file).await?;
    if let Some(address) = listen {
        config.listen.address = address;
    }
    let telemetry = Telemetry::new(&config.telemetry).map_err(|error| error.to_string())?;
    let server = Server::start(config, Box::new(Observed(telemetry.clone()))).await?;
    // To be looked at once more when it has stopped.
    let gateway = Arc::clone(&server.gateway);
    let watched = Arc::downgrade(&gateway);
    telemetry.watch(move || watched.upgrade().map(|gateway| gateway.running()));
    if let Some(admin) = &server.admin_url {
        announce(&format!("admin on {admin}"));
    }
    if let Source::Demo(_) = source {
        announce(&demo::curl(&server.url));
    }
    announce(&format!("listening on {}", server.url));
    let reload = Reload::new(&server.gateway, server.certificate.clone(), listen);
    let follow = async {
        match source {
            Source::File(watch, hangup) => reload.follow(watch, hangup).await,
            Source::Demo(_azure) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = end.heard() => {}
        () = follow => {}
    }
    server.stop().await;
    // What is left to export is sent, which blocks.
    let _ = tokio::task::spawn_blocking(|| telemetry.shutdown()).await;
    drop(gateway);
    Ok(())
}

/// Where a configuration came from.
enum Source {
    File(config::Watch, Hangup),
    Demo(demo::Azure),
}

impl Source {
    async fn open(file: Option<&Path>) -> Result<(Config, Self), String> {
        let Some(file) = file else {
            let (azure, config) = demo::start().await.map_err(|error| error.to_string())?;
            return Ok((config, Self::Demo(azure)));
        };
        // Heard while the file is still read: it is read again then.
        let hangup = Hangup::new();
        let (config, watch) = config::open(file).map_err(|problems| problems.to_string())?;
        Ok((config, Self::File(watch, hangup)))
    }
}

/// What the gateway tells about itself.
struct Observed(Telemetry);

impl Observe for Observed {
    fn arrived(&self) {
        self.0.arrived();
    }

    fn trace(&self, at: SystemTime, started: Instant, headers: &mut HeaderMap) -> Option<Trace> {
        self.0.trace(at, started, headers)
    }

    fn finished(&self, record: &AccessRecord, trace: Option<&Trace>, running: &Snapshot) {
        self.0.finished(record, trace, running);
    }

    fn page(&self, path: &str, running: &Snapshot) -> Option<Response<Bytes>> {
        let (kind, text) = match path {
            "/metrics" => (telemetry::CONTENT_TYPE, self.0.metrics(running)),
            "/-/status" => ("application/json", format!("{:#}\n", self.0.status(running))),
            _ => return None,
        };
        let mut response = Response::new(Bytes::from(text));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        Some(response)
    }
}

/// A gateway that listens.
struct Server {
    gateway: Arc<Gateway>,
    url: String,
    admin_url: Option<String>,
    /// With TLS.
    certificate: Option<Certificate>,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
    /// Open until the end, so that it tells of the draining too.
    admin: Option<JoinHandle<()>>,
}

impl Server {
    /// # Errors
    ///
    /// When something in `config` cannot work here, such as an address that is taken.
    async fn start(config: Config, observer: Box<dyn Observe>) -> Result<Self, String> {
        let settings = config.listen.clone();
        let gateway = Arc::new(Gateway::new(config, observer, open_tokens)?);
        let public = Listener::bind(settings.address, settings.tls.as_ref()).await?;
        let admin = match settings.admin {
            Some(address) => Some(Listener::bind(address, None).await?),
            None => None,
        };
        let workers = Workers::start().map_err(|error| format!("cannot start threads: {error}"))?;
        let workers = Arc::new(workers);
        let (stop, stopped) = watch::channel(false);
        let pages = if admin.is_some() { Pages::Health } else { Pages::All };
        Ok(Self {
            url: public.url(),
            admin_url: admin.as_ref().map(Listener::url),
            certificate: public.certificate(),
            serving: tokio::spawn(public.serve(
                Door::public(&gateway, pages),
                Arc::clone(&workers),
                stopped,
            )),
            admin: admin.map(|admin| {
                let (always, going) = watch::channel(false);
                let door = Door::admin(&gateway);
                tokio::spawn(async move {
                    admin.serve(door, workers, going).await;
                    drop(always);
                })
            }),
            gateway,
            stop,
        })
    }

    /// Takes no more connections, and returns when the last one is done or the time for that is up.
    async fn stop(self) {
        self.gateway.drain();
        // Without receivers there is nobody to tell.
        let _ = self.stop.send(true);
        let _ = self.serving.await;
        if let Some(admin) = self.admin {
            admin.abort();
        }
    }
}

fn open_tokens(entra: &Entra) -> Result<stack::Tokens, String> {
    let source = entra::source(entra).map_err(|error| error.to_string())?;
    Ok(Arc::new(source))
}

/// One line on standard output, whoever reads it.
fn announce(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}
