//! One loaded configuration, ready to serve.

use std::sync::Arc;

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

/// A configuration with what was made of it.
pub(crate) struct Runtime {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) clients: ClientKeys,
    pub(crate) routes: Routes,
    /// For the next configuration, if it has the same settings.
    pub(crate) upstream: UpstreamClient,
    pub(crate) tokens: Option<AccessTokens>,
    /// Of the tokens that clients show.
    pub(crate) verifier: Option<Arc<Verifier>>,
}

impl Runtime {
    pub(crate) fn config(&self) -> &Config {
        &self.snapshot.config
    }
}
