//! A finished request with labels restricted to configured names (bounded cardinality).

use tower_spillover::{BackendPool, Served, classify::Outcome};

use crate::{
    access_record::AccessRecord,
    config::{Backend, Clients},
    snapshot::{RunningModel, Snapshot},
};

/// A record with the state that its labels come from.
#[derive(Debug)]
pub(crate) struct Labels<'a> {
    pub(crate) record: &'a AccessRecord,
    pub(crate) client: &'a str,
    pub(crate) model: &'a str,
    pub(crate) operation: &'static str,
    pub(crate) decision: Decision,
    running: &'a Snapshot,
    tiers: Option<&'a RunningModel>,
}

/// The source of a request's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Ptu,
    Standard,
    /// No backend had room.
    Refused,
    /// The gateway itself, without calling a backend.
    Gateway,
}

impl<'a> Labels<'a> {
    pub(crate) fn of(record: &'a AccessRecord, running: &'a Snapshot) -> Self {
        let model = record.model.as_deref().and_then(|name| running.models.get_key_value(name));
        let mut labels = Self {
            record,
            client: client(&record.client, running),
            model: model.map_or(UNKNOWN, |(name, _)| name),
            operation: record.operation,
            decision: Decision::Gateway,
            running,
            tiers: model.map(|(_, tiers)| &**tiers),
        };
        labels.decision = labels.decide();
        labels
    }

    /// `ptu` or `standard`; a backend is in exactly one of the two.
    pub(crate) fn tier(&self, backend: &str) -> &'static str {
        self.tiers.map_or(UNKNOWN, |tiers| tier(tiers, backend))
    }

    pub(crate) fn backend(&self) -> Option<&'a str> {
        self.record.served.as_ref().and_then(Served::backend)
    }

    /// The tier that paid for the answer: `ptu` or `standard`, which Azure may have chosen within
    /// one resource.
    pub(crate) const fn paid_tier(&self) -> &'static str {
        match self.decision {
            Decision::Ptu => PTU,
            Decision::Standard | Decision::Refused | Decision::Gateway => STANDARD,
        }
    }

    /// Whether Standard answered instead of a PTU.
    pub(crate) fn is_spilled(&self) -> bool {
        self.decision == Decision::Standard
            && self.record.served.as_ref().is_some_and(Served::spilled)
    }

    /// Records the utilization that the request's backends reported.
    pub(crate) fn note_utilization(&self) {
        let (Some(tiers), Some(served)) = (self.tiers, &self.record.served) else { return };
        let started = self.record.started;
        for attempt in served.attempts() {
            if let Some(share) = attempt.utilization() {
                tiers.utilizations.note(attempt.backend(), share, started + attempt.at());
            }
        }
        if let (Some(share), Some(backend)) = (self.record.utilization, served.backend()) {
            tiers.utilizations.note(backend, share, started + self.record.to_head);
        }
    }

    /// The host of the backend that answered.
    pub(crate) fn server_address(&self) -> Option<&'a str> {
        self.configured(self.backend()?).map(|backend| host(&backend.endpoint))
    }

    /// The backends of the request's model.
    pub(crate) fn backends(&self) -> impl Iterator<Item = &'a Backend> + use<'a> {
        let model = self.running.config.models.get(self.model);
        model.into_iter().flat_map(|model| model.ptu.iter().chain(&model.standard))
    }

    pub(crate) fn configured(&self, backend: &str) -> Option<&'a Backend> {
        self.backends().find(|configured| configured.name == backend)
    }

    fn decide(&self) -> Decision {
        let Some(served) = &self.record.served else { return Decision::Gateway };
        let last = served.attempts().next_back().map(|attempt| attempt.outcome());
        match (served.backend(), last) {
            (None, _) | (_, Some(Outcome::Throttled(_))) => Decision::Refused,
            // Spilled by Azure, within the PTU's resource.
            (Some(_), _) if served.spilled_by_azure() => Decision::Standard,
            (Some(backend), _) if self.tier(backend) == PTU => Decision::Ptu,
            _ => Decision::Standard,
        }
    }
}

impl Decision {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Ptu => PTU,
            Self::Standard => STANDARD,
            Self::Refused => "refused",
            Self::Gateway => "gateway",
        }
    }
}

/// The tier of a model's backend.
pub(crate) fn tier(tiers: &RunningModel, backend: &str) -> &'static str {
    let has = |pool: &Option<BackendPool>| {
        pool.as_ref().is_some_and(|pool| pool.names().any(|name| name == backend))
    };
    // A tier that failed as a whole appears under its own name.
    let is_ptu = has(&tiers.ptu) || (backend == PTU && !has(&tiers.standard));
    if is_ptu { PTU } else { STANDARD }
}

/// Every backend of the configuration, with its tier.
pub(crate) fn backends<'a>(
    ptu: &'a [Backend],
    standard: &'a [Backend],
) -> impl Iterator<Item = (&'static str, &'a Backend)> {
    let tagged = |tier, backends: &'a [Backend]| backends.iter().map(move |b| (tier, b));
    tagged(PTU, ptu).chain(tagged(STANDARD, standard))
}

/// The host of an endpoint, without user, port or path.
pub(crate) fn host(endpoint: &str) -> &str {
    let rest = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    match place.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => place,
    }
}

fn client<'a>(name: &'a str, running: &Snapshot) -> &'a str {
    match running.config.clients {
        Clients::Open => "open",
        Clients::Keyed(_) if running.has_client(name) => name,
        Clients::Keyed(_) => UNKNOWN,
    }
}

pub(crate) const UNKNOWN: &str = "unknown";
pub(crate) const PTU: &str = "ptu";
pub(crate) const STANDARD: &str = "standard";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_comes_without_user_port_and_path() {
        for (endpoint, expected) in [
            ("https://contoso.openai.azure.com", "contoso.openai.azure.com"),
            ("https://contoso.openai.azure.com/openai", "contoso.openai.azure.com"),
            ("http://user:canary@10.0.0.1:8080/x", "10.0.0.1"),
            ("http://[::1]:80", "[::1]"),
        ] {
            assert_eq!(host(endpoint), expected);
        }
    }
}
