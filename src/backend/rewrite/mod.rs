//! Rewrites one request for one backend: URI, deployment, `model`.

mod body;
mod deployment;
mod endpoint;
mod model;
mod multipart;
mod query;
mod splice;
mod uri;

#[cfg(fuzzing)]
pub(crate) use self::uri::rewrite_uri;
pub(crate) use self::{
    body::rewrite_model,
    deployment::Deployment,
    endpoint::parse_endpoint,
    model::replace_model,
    multipart::replace_model_field,
    uri::{BackendTarget, rewrite_deployment, rewrite_request},
};
