//! Applies changed configurations, and logs which keys require a restart.

use std::{net::SocketAddr, sync::Arc};

use super::build;
use crate::{
    config::{Config, Hangup, Listen, TelemetrySettings, Watch},
    serve::inbound::{
        certificate::{Certificate, Renewal},
        gateway::Gateway,
    },
};

/// Serves with another configuration from now on. Requests in flight finish with theirs.
///
/// # Errors
///
/// If it is invalid; the last one stays active.
pub(crate) fn reload(gateway: &Gateway, config: Config) -> Result<(), String> {
    let last = gateway.runtime();
    gateway.replace(build::runtime(config, Some(&last))?);
    Ok(())
}

/// Logs settings of `gateway` that have no effect.
pub(crate) fn log_idle(gateway: &Gateway) {
    for problem in &gateway.runtime().config().idle {
        tracing::warn!(target: TARGET, key = problem.key, place = %problem.place(), "{}", problem.text);
    }
}

/// A server whose configuration can be reloaded.
pub(crate) struct Reload {
    gateway: Arc<Gateway>,
    certificate: Option<Certificate>,
    /// The address from the command line, which overrides the file.
    forced: Option<SocketAddr>,
    /// The listener settings at the start.
    listen: Listen,
    telemetry: TelemetrySettings,
}

impl Reload {
    /// For a server that was just started with `gateway`'s configuration.
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

    /// Applies the configuration whenever the file changes, or on `hangup`. An invalid one changes
    /// nothing. Runs until it is dropped.
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

    /// Returns the changed keys that keep their value until a restart.
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
            // Only its presence requires a restart; a replaced certificate is reloaded.
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

/// For log events; part of their format, so it does not change with the module path.
const TARGET: &str = "spillover::serve::reload";
