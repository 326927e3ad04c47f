//! A client's home: the resource that its models share for stored objects.

use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::Arc};

use tower_spillover::sticky::{CommonResources, Home, Residents};

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

/// Finds the homes of the clients of a configuration. Clients that may use the same models share the
/// comparison of these.
pub(crate) struct ClientHomes<'a> {
    routes: &'a Routes,
    known: RefCell<HashMap<AllowedModels, Rc<Models>>>,
}

/// The sticky models that some clients may use.
struct Models {
    first: Option<Arc<ModelRoute>>,
    homes: CommonResources,
}

impl<'a> ClientHomes<'a> {
    pub(crate) fn new(routes: &'a Routes) -> Self {
        Self { routes, known: RefCell::default() }
    }

    /// Prefers a home on the default model, if the client may use it, that as many of its other
    /// models as possible share.
    pub(crate) fn of(&self, owner: &str, allowed: &AllowedModels) -> ClientHome {
        let models = self.models(allowed);
        let home = Home::of(owner).owned().among(&models.homes);
        let is_shared = home.is_in_all(&models.homes);
        ClientHome { home, model: models.first.clone().filter(|_| is_shared) }
    }

    fn models(&self, allowed: &AllowedModels) -> Rc<Models> {
        if let Some(known) = self.known.borrow().get(allowed) {
            return Rc::clone(known);
        }
        let (models, homes): (Vec<_>, Vec<Residents>) = self
            .routes
            .default_first(allowed)
            .filter_map(|route| Some((route, route.homes()?)))
            .unzip();
        let first = models.first().map(|route| Arc::clone(route));
        let models = Rc::new(Models { first, homes: CommonResources::of(&homes) });
        self.known.borrow_mut().insert(allowed.clone(), Rc::clone(&models));
        models
    }
}
