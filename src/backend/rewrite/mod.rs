//! Rewrites one request for one backend: URI, deployment, `model`.
#![allow(dead_code, unused_imports)]

pub(crate) use self::deployment::Deployment;
pub(crate) use self::endpoint::{EndpointError, parse_endpoint};
pub(crate) use self::model::replace_model;
pub(crate) use self::multipart::replace_model_field;
pub(crate) use self::path::{deployment_segment, names_model_in_body};
pub(crate) use self::uri::{Place, rewrite_deployment, rewrite_uri};

mod api_version;
mod deployment;
mod endpoint;
mod model;
mod multipart;
mod path;
mod splice;
mod uri;
