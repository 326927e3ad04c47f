//! Rewrites one request for one backend: URI, deployment, `model`.

mod body;
mod deployment;
mod endpoint;
mod model;
mod multipart;
mod path;
mod percent;
mod query;
mod splice;
mod uri;

use self::path::names_model_in_body;
pub(crate) use self::{
    body::rewrite_model,
    deployment::Deployment,
    endpoint::{Endpoint, parse_endpoint},
    model::replace_model,
    multipart::replace_model_field,
    path::{deployment_segment, operation},
    percent::decode,
    query::CallerKeys,
    uri::{Place, rewrite_deployment, rewrite_uri},
};
