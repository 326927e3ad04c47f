//! The models by name, to route requests to.

use std::{collections::HashMap, sync::Arc, time::Duration};

use http::Request;
use tower_spillover::{
    BackendPool, Sticky,
    sticky::{Home, Residents},
};

use crate::{
    serve::upstream::{request_body::RequestBody, stack::Stack},
    snapshot::{RunningModel, Snapshot},
};

/// The models of one configuration.
pub(crate) struct Routes {
    snapshot: Arc<Snapshot>,
    /// By their own names and their aliases.
    by_name: HashMap<String, Arc<ModelRoute>>,
    default: Option<Arc<ModelRoute>>,
}

/// A configured model.
#[derive(Debug)]
pub(crate) struct ModelRoute {
    pub(crate) model: Arc<RunningModel>,
    pub(crate) stack: Stack,
    /// If its requests stay with what they refer to.
    pub(crate) sticky: Option<StickyScope>,
}

/// Detects that a request belongs to one of a model's backends.
#[derive(Debug)]
pub(crate) struct StickyScope {
    pub(crate) sticky: Sticky,
    pub(crate) residents: Residents,
}

impl ModelRoute {
    /// Whether its requests stay with what they refer to.
    pub(crate) const fn is_sticky(&self) -> bool {
        self.sticky.is_some()
    }

    pub(crate) fn has_backend(&self, name: &str) -> bool {
        let pools = self.model.ptu.iter().chain(&self.model.standard);
        pools.flat_map(BackendPool::names).any(|known| known == name)
    }

    /// How long the whole PTU tier will refuse; `None` if it may answer, or fails.
    pub(crate) fn ptu_refuses_for(&self) -> Option<Duration> {
        self.model.ptu.as_ref()?.cooldowns().map(|(_, resting)| resting).min()?
    }

    /// The candidates for a client's home; `None` if the model is not sticky.
    pub(crate) fn homes(&self) -> Option<Residents> {
        self.sticky.as_ref().map(|scope| scope.sticky.homes(&scope.residents))
    }

    /// Whether something that `request` refers to is known to be at one of its backends.
    fn holds(&self, request: &Request<RequestBody>) -> bool {
        let knows = |scope: &StickyScope| scope.sticky.knows(request, &scope.residents);
        self.sticky.as_ref().is_some_and(knows)
    }
}

impl Routes {
    /// `by_name` has the models of `snapshot`.
    pub(crate) fn new(snapshot: Arc<Snapshot>, by_name: HashMap<String, Arc<ModelRoute>>) -> Self {
        let models = &snapshot.config.models;
        let only = models.keys().next().filter(|_| models.len() == 1);
        let default = snapshot.config.default_model.as_ref().or(only);
        let default = default.and_then(|name| by_name.get(name)).cloned();
        Self { snapshot, by_name, default }
    }

    /// The model named `name`, by its own name or an alias; else the default model, if the
    /// configuration has one.
    pub(crate) fn named(&self, name: &str) -> Option<&Arc<ModelRoute>> {
        let has_default = self.snapshot.config.default_model.is_some();
        let stand_in = || self.default.as_ref().filter(|_| has_default);
        self.by_name.get(name).or_else(stand_in)
    }

    /// The model configured as `name`, its own name or an alias.
    pub(crate) fn configured(&self, name: &str) -> Option<&Arc<ModelRoute>> {
        self.by_name.get(name)
    }

    /// The model for requests that name none.
    pub(crate) const fn unnamed(&self) -> Option<&Arc<ModelRoute>> {
        self.default.as_ref()
    }

    /// Asks the fleet what a request of the client of `home` refers to, if that decides its model.
    pub(crate) async fn recall(&self, request: &mut Request<RequestBody>, home: &Home) {
        if self.snapshot.models.len() > 1 && self.snapshot.sticky.is_shared() {
            self.snapshot.sticky.recall(home).request(request).await;
        }
    }

    /// The model of a request that names none, determined by the backend that it names or by what
    /// it refers to: the first, starting with the default model, for which `may_be` returns true.
    pub(crate) fn holder(
        &self,
        request: &Request<RequestBody>,
        backend: Option<&str>,
        may_be: impl Fn(&str) -> bool,
    ) -> Option<&Arc<ModelRoute>> {
        if self.snapshot.models.len() < 2 {
            return None;
        }
        self.default_first().find(|route| {
            may_be(&route.model.name)
                && match backend {
                    Some(name) => route.is_sticky() && route.has_backend(name),
                    None => route.holds(request),
                }
        })
    }

    /// All models, the default one first; it appears twice.
    pub(crate) fn default_first(&self) -> impl Iterator<Item = &Arc<ModelRoute>> {
        let all = self.names().filter_map(|name| self.by_name.get(name));
        self.default.iter().chain(all)
    }

    /// The models' own names, without aliases.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.snapshot.models.keys().map(String::as_str)
    }
}
