//! The fleet of this gateway: what it shares with other replicas.

use std::error::Error;

use tower_spillover::fleet::{Fleet, RedisStore, StoreStatus};

use crate::{config::FleetSettings, entra};

/// A fleet in use.
#[derive(Clone, Debug)]
pub(crate) struct RunningFleet {
    pub(crate) fleet: Fleet,
    pub(crate) store: RedisStore,
}

impl RunningFleet {
    /// Begins to connect to the store.
    ///
    /// # Errors
    ///
    /// If the store's address, identity, certificates or secret cannot be used.
    pub(crate) fn new(settings: &FleetSettings) -> Result<Self, Box<dyn Error>> {
        let store = store(settings)?;
        let address = store.address();
        let store = store.on_change(move |status| log(&address, status));
        let fleet = Fleet::new(&settings.name, store.clone())?.timeout(settings.timeout);
        Ok(Self { fleet, store })
    }
}

/// The store, which is not connected before a fleet uses it.
///
/// # Errors
///
/// If its address, identity, certificates or secret cannot be used.
pub(crate) fn store(settings: &FleetSettings) -> Result<RedisStore, Box<dyn Error>> {
    let mut urls = settings.store.iter().map(String::as_str);
    let mut store = match &settings.sentinel {
        Some(master) => RedisStore::of_sentinels(master, urls)?,
        None if settings.cluster => RedisStore::of_cluster(urls)?,
        None => RedisStore::new(urls.next().unwrap_or_default())?,
    };
    if let Some(user) = &settings.user {
        store = store.user(user);
    }
    if let Some(password) = &settings.password {
        store = store.password(password.expose());
    }
    if let Some(entra) = &settings.entra {
        store = store.tokens(entra::tokens(entra)?);
    }
    if let Some(pem) = &settings.trust {
        store = store.trust(pem)?;
    }
    if let Some(secret) = &settings.secret {
        store = store.secret(secret.expose())?;
    }
    Ok(store)
}

/// One line per change.
fn log(store: &str, status: &StoreStatus) {
    match &status.reason {
        None => tracing::info!(target: TARGET, store, "the fleet's store answers"),
        Some(reason) => tracing::warn!(
            target: TARGET,
            store,
            %reason,
            "the fleet's store does not answer; this replica decides alone"
        ),
    }
}

/// For log events; part of their format.
const TARGET: &str = "spillover::fleet";
