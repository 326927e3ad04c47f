//! One loaded configuration, ready to serve.

use std::sync::Arc;

use tower_spillover::Sticky;

use super::client_keys::ClientKeys;
use crate::{
    client_tokens::Verifier,
    config::Config,
    serve::{
        routing::routes::Routes,
        upstream::{client::UpstreamClient, pools::AccessTokens},
    },
    snapshot::Snapshot,
};

/// A configuration and what was built from it.
pub(crate) struct Runtime {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) clients: ClientKeys,
    pub(crate) routes: Routes,
    /// Reused by the next configuration if its settings are the same.
    pub(crate) upstream: UpstreamClient,
    pub(crate) tokens: Option<AccessTokens>,
    /// Verifies the tokens of clients.
    pub(crate) verifier: Option<Arc<Verifier>>,
    /// The sticky ids, without the fleet's store: the next configuration may have another one.
    pub(crate) memory: Sticky,
}

impl Runtime {
    pub(crate) fn config(&self) -> &Config {
        &self.snapshot.config
    }
}
