//! Finds the model of a request: by its path, its body, or what it refers to.

pub(crate) mod allowed_models;
mod body_model;
pub(crate) mod client_home;
mod json_value;
pub(crate) mod known_operations;
pub(crate) mod model_list;
pub(crate) mod model_routing;
mod model_walk;
pub(crate) mod named_backend;
pub(crate) mod named_models;
pub(crate) mod ownership;
pub(crate) mod route;
pub(crate) mod routes;
pub(crate) mod spelling;
mod strict_form;
