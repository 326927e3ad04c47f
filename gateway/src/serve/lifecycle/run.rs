//! `spillover serve`, from its arguments to its exit.

use std::{
    net::SocketAddr,
    path::Path,
    process::ExitCode,
    sync::{Arc, OnceLock, Weak},
    time::{Instant, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::{
    demo,
    reload::{self, Reload},
    server::{Failure, Server},
    signals::End,
};
use crate::{
    access_record::AccessRecord,
    config::{self, Config, Hangup},
    output::{self, announce},
    serve::{
        record::observe::{Observe, Page},
        refusal::Refusal,
        workers::Workers,
    },
    snapshot::Snapshot,
    telemetry::{self, Format, Telemetry, Trace},
};

/// Serves the configuration in `file`, or a demonstration without one, until a signal ends it.
pub(crate) fn run(file: Option<&Path>, listen: Option<SocketAddr>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let served = match runtime {
        Ok(runtime) => {
            let served = runtime.block_on(serve(file, listen));
            // Cuts off whatever did not end in the drain time.
            runtime.shutdown_background();
            served
        }
        Err(error) => Err(Failure::Start(format!("cannot start: {error}"))),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let (problem, status) = match failure {
                Failure::Start(problem) => (problem, 1),
                Failure::Configuration(problem) => (problem, 2),
            };
            output::report(&problem);
            ExitCode::from(status)
        }
    }
}

async fn serve(file: Option<&Path>, listen: Option<SocketAddr>) -> Result<(), Failure> {
    // Before anything else: a signal without a handler ends the process.
    let mut end = End::new()
        .map_err(|error| Failure::Start(format!("cannot register signal handlers: {error}")))?;
    let (mut config, source) = tokio::select! {
        opened = Source::open(file) => opened?,
        () = end.heard() => return Ok(()),
    };
    if let Some(address) = listen {
        config.listen.address = address;
    }
    let telemetry = Telemetry::new(&config.telemetry)
        .map_err(|error| Failure::Configuration(error.to_string()))?;
    telemetry::log_panics();
    let workers = Arc::<OnceLock<Weak<Workers>>>::default();
    let observed = Observed { telemetry: telemetry.clone(), workers: Arc::clone(&workers) };
    let server = Server::start(config, Arc::new(observed)).await?;
    let _ = workers.set(Weak::clone(&server.workers));
    // Kept for a last look after it has stopped.
    let gateway = Arc::clone(&server.gateway);
    reload::log_idle(&gateway);
    let watched = Arc::downgrade(&gateway);
    telemetry.watch(move || watched.upgrade().map(|gateway| gateway.snapshot()));
    let admin = server.admin_url.as_deref();
    if let Source::Demo(_) = source {
        demo::lines(&server.url, admin).iter().for_each(|line| announce(line));
    } else {
        admin.iter().for_each(|admin| announce(&format!("admin on {admin}")));
        announce(&format!("listening on {}", server.url));
    }
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
        () = telemetry.sample() => {}
    }
    let exporting = telemetry.clone();
    let stopped = async {
        server.stop().await;
        // Sends what is left to export, which blocks.
        let _ = tokio::task::spawn_blocking(|| exporting.shutdown()).await;
    };
    tokio::select! {
        () = stopped => {}
        () = end.heard() => tracing::warn!(target: TARGET, "a second signal ended the drain"),
    }
    telemetry.flush_log();
    drop(gateway);
    Ok(())
}

/// The origin of a configuration.
enum Source {
    File(config::Watch, Hangup),
    Demo(demo::Azure),
}

impl Source {
    async fn open(file: Option<&Path>) -> Result<(Config, Self), Failure> {
        let Some(file) = file else {
            let demo = demo::start().await;
            let (azure, config) = demo.map_err(|error| Failure::Start(error.to_string()))?;
            return Ok((config, Self::Demo(azure)));
        };
        // Register first: a signal that arrives while the file is read causes another read.
        let hangup = Hangup::new();
        let file = file.to_owned();
        let opened = tokio::task::spawn_blocking(move || config::open(&file)).await;
        let opened = opened.map_err(|error| Failure::Start(error.to_string()))?;
        let (config, watch) =
            opened.map_err(|problems| Failure::Configuration(problems.to_string()))?;
        Ok((config, Self::File(watch, hangup)))
    }
}

/// Telemetry as the observer of requests.
struct Observed {
    telemetry: Telemetry,
    /// Set once they have started.
    workers: Arc<OnceLock<Weak<Workers>>>,
}

impl Observe for Observed {
    fn arrived(&self) {
        self.telemetry.arrived();
    }

    fn trace(&self, at: SystemTime, started: Instant, headers: &mut HeaderMap) -> Option<Trace> {
        self.telemetry.trace(at, started, headers)
    }

    fn finished(&self, record: AccessRecord, trace: Option<&Trace>, running: &Snapshot) {
        self.telemetry.finished(record, trace, running);
    }

    fn page(&self, page: &Page<'_>, running: &Snapshot) -> Option<Response<Bytes>> {
        let (kind, text) = match page.path {
            "/metrics" => {
                let format = Format::of(accept(page.headers).as_deref());
                (format.content_type(), self.telemetry.metrics(running, format))
            }
            "/-/requests" => match self.telemetry.recent_requests(page.query, running) {
                Ok(requests) => (JSON, format!("{requests:#}\n")),
                Err(problem) => {
                    let refusal = Refusal::new(StatusCode::BAD_REQUEST, "BadRequest", problem);
                    return Some(refusal.into_response());
                }
            },
            "/-/status" => {
                let mut status = self.telemetry.status(running);
                let workers = self.workers.get().and_then(Weak::upgrade);
                status["tasks"] = workers.map_or(0, |workers| workers.tasks()).into();
                (JSON, format!("{status:#}\n"))
            }
            _ => return None,
        };
        let mut response = Response::new(Bytes::from(text));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if page.path == "/metrics" {
            headers.insert(header::VARY, HeaderValue::from_static("accept"));
        }
        Some(response)
    }
}

/// Joins all `Accept` headers.
fn accept(headers: &HeaderMap) -> Option<String> {
    let values: Vec<_> =
        headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    (!values.is_empty()).then(|| values.join(","))
}

const JSON: &str = "application/json";

/// For log events; part of their format, so it does not change with the module path.
const TARGET: &str = "spillover::serve";
