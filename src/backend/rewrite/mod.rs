//! Rewrites one request for one backend: URI, deployment, `model`.

mod body;
mod deployment;
mod endpoint;
mod foreign;
mod known_paths;
mod model;
mod multipart;
mod naming;
mod query;
mod service_tier;
mod splice;
mod uri;

pub(crate) use self::{
    body::{RequestReading, Unnameable, rewrite_model},
    deployment::Deployment,
    endpoint::parse_endpoint,
    known_paths::KnownPaths,
    query::{CALLER_KEYS_AND_VERSION, VERSION},
    service_tier::ask_for_default_tier,
    uri::{BackendTarget, Paths, rewrite_deployment, rewrite_request},
};
#[cfg(fuzzing)]
pub(crate) use self::{model::replace_model, multipart::replace_model_field, uri::rewrite_uri};
