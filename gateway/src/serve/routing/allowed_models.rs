//! The models that a client may use.

/// By configured name, sorted; `None`: all models.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct AllowedModels(Option<Vec<String>>);

impl AllowedModels {
    pub(crate) fn new(names: Option<Vec<String>>) -> Self {
        Self(names.map(|mut names| {
            names.sort_unstable();
            names.dedup();
            names
        }))
    }

    pub(crate) fn contains(&self, model: &str) -> bool {
        let is_in =
            |names: &Vec<String>| names.binary_search_by(|name| name.as_str().cmp(model)).is_ok();
        self.0.as_ref().is_none_or(is_in)
    }

    /// The names, if this client may not use some of the models.
    pub(crate) fn names(&self) -> Option<&[String]> {
        self.0.as_deref()
    }

    /// Whether this client may not use some of the models.
    pub(crate) const fn is_restricted(&self) -> bool {
        self.0.is_some()
    }
}
