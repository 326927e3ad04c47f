//! Puts changed configurations to work, and logs which keys take a restart.

use std::{net::SocketAddr, sync::Arc};

use super::build;
use crate::{
    config::{Config, Hangup, Listen, TelemetrySettings, Watch},
    serve::inbound::{
        certificate::{Certificate, Renewal},
        gateway::Gateway,
    },
};

/// Serves by another configuration from now on. Requests under way finish by theirs.
///
/// # Errors
///
/// When it cannot work; the last one stays then.
pub(crate) fn reload(gateway: &Gateway, config: Config) -> Result<(), String> {
    let last = gateway.runtime();
    gateway.replace(build::runtime(config, Some(&last))?);
    Ok(())
}

/// Logs what is set at `gateway` and does nothing.
pub(crate) fn log_idle(gateway: &Gateway) {
    for problem in &gateway.runtime().config().idle {
        tracing::warn!(target: TARGET, key = problem.key, place = %problem.place(), "{}", problem.text);
    }
}

/// A server whose configuration can become another.
pub(crate) struct Reload {
    gateway: Arc<Gateway>,
    certificate: Option<Certificate>,
    /// Where it listens, whatever the file says.
    forced: Option<SocketAddr>,
    /// What it was started with.
    listen: Listen,
    telemetry: TelemetrySettings,
}

impl Reload {
    /// Of a server that was just started with `gateway`'s configuration.
    pub(crate) fn new(
        gateway: &Arc<Gateway>,
        certificate: Option<Certificate>,
        forced: Option<SocketAddr>,
    ) -> Self {
        let runtime = gateway.runtime();
        let Config { listen, telemetry, .. } = runtime.config();
        Self {
            gateway: Arc::clone(gateway),
            certificate,
            forced,
            listen: listen.clone(),
            telemetry: telemetry.clone(),
        }
    }

    /// Applies the configuration whenever it becomes another, or when it is asked to by `hangup`.
    /// One that is wrong changes nothing. It goes on until it is dropped.
    pub(crate) async fn follow(self, watch: Watch, hangup: Hangup) {
        let applied = |loaded| match self.apply(loaded) {
            Ok(fixed) => {
                tracing::info!(target: TARGET, "configuration reloaded");
                log_idle(&self.gateway);
                for key in fixed {
                    tracing::warn!(
                        target: TARGET,
                        key,
                        "changed, but keeps its value until a restart"
                    );
                }
            }
            Err(problem) => {
                tracing::error!(
                    target: TARGET,
                    %problem,
                    "configuration not reloaded; the last one stays"
                );
            }
        };
        watch.run(hangup, |loaded| applied(loaded.map_err(|problems| problems.to_string()))).await;
    }

    /// The keys that differ from those at work and stay as they were.
    fn apply(&self, loaded: Result<Config, String>) -> Result<Vec<&'static str>, String> {
        let mut config = loaded?;
        if let Some(address) = self.forced {
            config.listen.address = address;
        }
        let renewed = match (&self.certificate, &config.listen.tls) {
            (Some(certificate), Some(tls)) => {
                let renewal = Renewal::new(tls).map_err(|error| format!("listen.tls: {error}"))?;
                Some((certificate, renewal))
            }
            _ => None,
        };
        let fixed = self.fixed(&config);
        reload(&self.gateway, config)?;
        if let Some((certificate, renewal)) = renewed {
            certificate.renew(renewal);
        }
        Ok(fixed)
    }

    fn fixed(&self, config: &Config) -> Vec<&'static str> {
        let (listen, last) = (&config.listen, &self.listen);
        let (telemetry, last_telemetry) = (&config.telemetry, &self.telemetry);
        let differs = [
            ("listen.address", listen.address != last.address),
            ("listen.admin", listen.admin != last.admin),
            // Whether there is one; a certificate in another's place is renewed.
            ("listen.tls", listen.tls.is_some() != last.tls.is_some()),
            ("telemetry.log", telemetry.log != last_telemetry.log),
            ("telemetry.json", telemetry.json != last_telemetry.json),
            ("telemetry.otlp", telemetry.otlp != last_telemetry.otlp),
            ("telemetry.service_name", telemetry.service_name != last_telemetry.service_name),
            (
                "telemetry.recent_requests",
                telemetry.recent_requests != last_telemetry.recent_requests,
            ),
        ];
        differs.into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect()
    }
}

/// Of log events: a part of their format, so it does not follow the place of this file.
const TARGET: &str = "spillover::serve::reload";
