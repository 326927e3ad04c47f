//! A client's home: the resource that its models share for stored objects.

use std::sync::Arc;

use tower_spillover::sticky::{Home, Residents};

use super::{
    allowed_models::AllowedModels,
    routes::{ModelRoute, Routes},
};

/// The home of one client or group, determined only by its name and the configuration.
#[derive(Clone, Debug)]
pub(crate) struct ClientHome {
    /// For the layers of every model.
    pub(crate) home: Home,
    /// The model for requests that name none, if the client may not use a default model; `None` if
    /// the client's models share no resource.
    pub(crate) model: Option<Arc<ModelRoute>>,
}

impl ClientHome {
    /// Prefers a home on the default model, if the client may use it, that as many of its other
    /// models as possible share.
    pub(crate) fn new(owner: &str, allowed: &AllowedModels, routes: &Routes) -> Self {
        let (models, homes): (Vec<_>, Vec<Residents>) = routes
            .default_first()
            .filter(|route| allowed.contains(&route.model.name))
            .filter_map(|route| Some((route, route.homes()?)))
            .unzip();
        let home = Home::of(owner).owned().among(&homes);
        let is_shared = homes.iter().all(|residents| home.is_with(residents));
        let model = models.first().filter(|_| is_shared).map(|route| Arc::clone(route));
        Self { home, model }
    }
}
