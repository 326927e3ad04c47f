//! Where a client's things are kept: on a resource that its models share.

use std::sync::Arc;

use tower_spillover::sticky::{Home, Residents};

use super::{
    allowed_models::AllowedModels,
    routes::{ModelRoute, Routes},
};

/// The home of one client or group, which follows from its name and the configuration alone.
#[derive(Clone, Debug)]
pub(crate) struct ClientHome {
    /// For the layers of every model.
    pub(crate) home: Home,
    /// The model through which requests go that name none, where no default model is for them; `None`
    /// when the client's models share no resource.
    pub(crate) model: Option<Arc<ModelRoute>>,
}

impl ClientHome {
    /// The home is with the default model, if the client has that, and with as many of its other models
    /// as can be.
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
