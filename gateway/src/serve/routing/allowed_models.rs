//! The models that a client may use.

/// By configured name; `None`: all models.
#[derive(Clone, Debug, Default)]
pub(crate) struct AllowedModels(Option<Vec<String>>);

impl AllowedModels {
    pub(crate) const fn new(names: Option<Vec<String>>) -> Self {
        Self(names)
    }

    pub(crate) fn contains(&self, model: &str) -> bool {
        self.0.as_ref().is_none_or(|names| names.iter().any(|name| name == model))
    }

    /// Whether this client may not use some of the models.
    pub(crate) const fn is_restricted(&self) -> bool {
        self.0.is_some()
    }
}
