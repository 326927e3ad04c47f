//! The listening server: started, drained, stopped.

use std::sync::{Arc, Weak};

use tokio::{sync::watch, task::JoinHandle};

use super::build;
use crate::{
    config::Config,
    serve::{
        inbound::{
            certificate::Certificate, gateway::Gateway, listen::Listener,
            listener_role::ListenerRole,
        },
        record::observe::Observe,
        workers::Workers,
    },
};

/// Why a gateway does not start.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A local obstacle, such as an address in use.
    Start(String),
    /// The configuration is invalid everywhere.
    Configuration(String),
}

/// A listening gateway.
pub(crate) struct Server {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) url: String,
    pub(crate) admin_url: Option<String>,
    /// If it serves TLS.
    pub(crate) certificate: Option<Certificate>,
    pub(crate) workers: Weak<Workers>,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
    /// Open until the end, so that it shows the draining too.
    admin: Option<JoinHandle<()>>,
}

impl Server {
    /// # Errors
    ///
    /// If something in `config` cannot work here, such as an address in use.
    pub(crate) async fn start(config: Config, observer: Arc<dyn Observe>) -> Result<Self, Failure> {
        let settings = config.listen.clone();
        let runtime = build::runtime(config, None).map_err(Failure::Configuration)?;
        let gateway = Arc::new(Gateway::new(runtime, observer));
        let bound = Listener::bind(settings.address, settings.tls.as_ref()).await;
        let public = bound.map_err(Failure::Start)?;
        let admin = match settings.admin {
            Some(address) => Some(Listener::bind(address, None).await.map_err(Failure::Start)?),
            None => None,
        };
        let workers = Workers::start()
            .map_err(|error| Failure::Start(format!("cannot start threads: {error}")))?;
        let workers = Arc::new(workers);
        let (stop, stopped) = watch::channel(false);
        Ok(Self {
            workers: Arc::downgrade(&workers),
            url: public.url(),
            admin_url: admin.as_ref().map(Listener::url),
            certificate: public.certificate(),
            serving: tokio::spawn(public.serve(
                ListenerRole::public(&gateway),
                Arc::clone(&workers),
                stopped,
            )),
            admin: admin.map(|admin| {
                let (always, going) = watch::channel(false);
                let role = ListenerRole::admin(&gateway);
                tokio::spawn(async move {
                    admin.serve(role, workers, going).await;
                    drop(always);
                })
            }),
            gateway,
            stop,
        })
    }

    /// Stops accepting, and returns when the last connection has finished or the drain time is
    /// over.
    pub(crate) async fn stop(self) {
        self.gateway.drain();
        // An error means that no receivers are left, because they have stopped already.
        let _ = self.stop.send(true);
        let _ = self.serving.await;
        if let Some(admin) = self.admin {
            admin.abort();
        }
    }
}
