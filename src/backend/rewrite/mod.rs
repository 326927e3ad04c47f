//! Rewrites one request for one backend: URI, deployment, `model`.

mod body;
mod deployment;
mod endpoint;
mod model;
mod multipart;
mod query;
mod service_tier;
mod splice;
mod uri;

pub(crate) use self::{
    body::{RequestReading, Unnameable, rewrite_model},
    deployment::Deployment,
    endpoint::parse_endpoint,
    service_tier::ask_for_default_tier,
    uri::{BackendTarget, rewrite_deployment, rewrite_request},
};
#[cfg(fuzzing)]
pub(crate) use self::{model::replace_model, multipart::replace_model_field, uri::rewrite_uri};
