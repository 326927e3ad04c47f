//! Label values, each allocated once.

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError, RwLock},
};

/// Every name that was ever a label. They come from configurations, so there are few.
#[derive(Debug, Default)]
pub(crate) struct Names(RwLock<HashSet<Arc<str>>>);

impl Names {
    /// The shared copy of `name`.
    pub(crate) fn intern(&self, name: &str) -> Arc<str> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        known.unwrap_or_else(|| {
            let mut names = self.0.write().unwrap_or_else(PoisonError::into_inner);
            let name: Arc<str> = names.get(name).cloned().unwrap_or_else(|| name.into());
            names.insert(Arc::clone(&name));
            name
        })
    }
}
