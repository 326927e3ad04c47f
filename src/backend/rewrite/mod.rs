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
    body::{RequestReading, rewrite_model},
    deployment::Deployment,
    endpoint::parse_endpoint,
    multipart::replace_model_field,
    service_tier::ask_for_default_tier,
    uri::{BackendTarget, rewrite_deployment, rewrite_request},
};
#[cfg(fuzzing)]
pub(crate) use self::{model::replace_model, uri::rewrite_uri};
