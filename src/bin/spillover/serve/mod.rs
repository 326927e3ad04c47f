//! `spillover serve`: the gateway's server, from its sockets to the layers.

mod clients;
mod clock;
mod connection;
mod control;
mod decision;
mod demo;
mod exchange;
mod gateway;
mod headers;
mod ledger;
mod listen;
mod model;
mod outbound;
mod refusal;
mod route;
mod site;
mod stack;
mod upload;
mod upstream;
mod usage;

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

pub use self::gateway::{Gateway, Observe, Unobserved};
use self::listen::Listener;
use crate::config;

/// Serves the configuration in `file`, or without one a demonstration, until a signal ends it.
pub fn run(file: Option<&Path>, listen: Option<SocketAddr>) -> ExitCode {
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
    let (azure, mut config) = match file {
        Some(file) => (None, config::load(file).map_err(|problems| problems.to_string())?),
        None => {
            let (azure, config) = demo::start().await.map_err(|error| error.to_string())?;
            (Some(azure), config)
        }
    };
    if let Some(address) = listen {
        config.listen.address = address;
    }
    let settings = config.listen.clone();
    let gateway = Arc::new(Gateway::new(config, Box::new(Unobserved), None)?);
    let public = Listener::bind(settings.address, settings.tls.as_ref()).await?;
    let admin = match settings.admin {
        Some(address) => Some(Listener::bind(address, None).await?),
        None => None,
    };
    let mut signals = Signals::new().map_err(|error| format!("cannot hear signals: {error}"))?;
    let (stop, stopped) = watch::channel(false);
    let url = public.url();
    let serving = tokio::spawn(public.serve(Arc::clone(&gateway), stopped.clone()));
    if let Some(admin) = admin {
        announce(&format!("admin on {}", admin.url()));
        // It tells of the draining too, so nothing stops it but the end.
        let (always, going) = watch::channel(false);
        let gateway = Arc::clone(&gateway);
        tokio::spawn(async move {
            admin.serve(gateway, going).await;
            drop(always);
        });
    }
    if azure.is_some() {
        announce(&demo::curl(&url));
    }
    announce(&format!("listening on {url}"));
    signals.obey(&gateway, file.map(Path::to_path_buf), listen).await;
    gateway.drain();
    // Without receivers there is nobody to tell.
    let _ = stop.send(true);
    let _ = serving.await;
    Ok(())
}

/// One line on standard output, whoever reads it.
fn announce(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Reloads whenever asked to; returns when asked to stop.
    async fn obey(&mut self, gateway: &Gateway, file: Option<PathBuf>, listen: Option<SocketAddr>) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hang_up.recv() => {
                    if let Some(file) = &file {
                        reload(gateway, file, listen);
                    }
                }
            }
        }
    }
}

/// A file that is wrong changes nothing.
fn reload(gateway: &Gateway, file: &Path, listen: Option<SocketAddr>) {
    let loaded = config::load(file).map_err(|problems| problems.to_string());
    let reloaded = loaded.and_then(|mut config| {
        if let Some(address) = listen {
            config.listen.address = address;
        }
        gateway.reload(config)
    });
    match reloaded {
        Ok(()) => tracing::info!(file = %file.display(), "configuration reloaded"),
        Err(problem) => tracing::error!(%problem, "configuration not reloaded; the last one stays"),
    }
}
