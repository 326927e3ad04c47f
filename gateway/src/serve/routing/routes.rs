//! The models by name, to route requests to.

use std::{collections::HashMap, sync::Arc, time::Duration};

use http::Request;
use tower_spillover::{
    BackendPool, Sticky,
    sticky::{Home, Residents},
};

use super::allowed_models::AllowedModels;
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
    /// The sticky models in order, the default one first.
    holders: Vec<Arc<ModelRoute>>,
    /// The places in `holders` of those with a backend of this name, in order.
    by_backend: HashMap<String, Vec<usize>>,
    /// The places of those with a backend on the resource with this hash, in order.
    by_resource: HashMap<u64, Vec<usize>>,
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
        self.backends().any(|known| known == name)
    }

    fn backends(&self) -> impl Iterator<Item = &str> {
        let pools = self.model.ptu.iter().chain(&self.model.standard);
        pools.flat_map(BackendPool::names)
    }

    /// How long the whole PTU tier will refuse; `None` if it may answer, or fails.
    pub(crate) fn ptu_refuses_for(&self) -> Option<Duration> {
        self.model.ptu.as_ref()?.cooldowns().map(|(_, resting)| resting).min()?
    }

    /// The candidates for a client's home; `None` if the model is not sticky.
    pub(crate) fn homes(&self) -> Option<Residents> {
        self.sticky.as_ref().map(|scope| scope.sticky.homes(&scope.residents))
    }
}

impl Routes {
    /// `by_name` has the models of `snapshot`.
    pub(crate) fn new(snapshot: Arc<Snapshot>, by_name: HashMap<String, Arc<ModelRoute>>) -> Self {
        let models = &snapshot.config.models;
        let only = models.keys().next().filter(|_| models.len() == 1);
        let default = snapshot.config.default_model.as_ref().or(only);
        let default = default.and_then(|name| by_name.get(name)).cloned();
        let own = models.keys().filter_map(|name| by_name.get(name));
        let others = own.filter(|route| !default.as_ref().is_some_and(|it| Arc::ptr_eq(it, route)));
        let (mut holders, mut by_backend, mut by_resource) =
            (Vec::new(), HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
        for route in default.iter().chain(others) {
            let Some(scope) = &route.sticky else { continue };
            for name in route.backends() {
                by_backend.entry(name.to_owned()).or_default().push(holders.len());
            }
            for resource in scope.residents.resources() {
                by_resource.entry(resource).or_default().push(holders.len());
            }
            holders.push(Arc::clone(route));
        }
        Self { snapshot, by_name, default, holders, by_backend, by_resource }
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
        let first = |places: &Vec<usize>| {
            places.iter().copied().find(|&place| may_be(&self.holders[place].model.name))
        };
        let place = match backend {
            Some(name) => self.by_backend.get(name).and_then(first),
            None => {
                let resources = self.snapshot.sticky.resources_of(request);
                let known = resources.iter().filter_map(|resource| self.by_resource.get(resource));
                known.filter_map(first).min()
            }
        };
        Some(&self.holders[place?])
    }

    /// The models that a client may use, the default one first; it appears twice.
    pub(crate) fn default_first<'a>(
        &'a self,
        allowed: &'a AllowedModels,
    ) -> impl Iterator<Item = &'a Arc<ModelRoute>> {
        let all = allowed.names().is_none().then(|| self.names());
        let some = allowed.names().unwrap_or_default().iter().map(String::as_str);
        let all = all.into_iter().flatten().chain(some).filter_map(|name| self.own(name));
        let default = self.default.iter().filter(|route| allowed.contains(&route.model.name));
        default.chain(all)
    }

    /// The model with this name of its own, no alias.
    fn own(&self, name: &str) -> Option<&Arc<ModelRoute>> {
        self.by_name.get(name).filter(|route| route.model.name == name)
    }

    /// The models' own names, without aliases.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.snapshot.models.keys().map(String::as_str)
    }
}
