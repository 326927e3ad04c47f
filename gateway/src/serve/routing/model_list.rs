//! Lists the models that the requesting client may use, in OpenAI's format.
//!
//! A backend would list its own names, which are not used here.

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use serde_json::{Value, json};

use super::{allowed_models::AllowedModels, routes::Routes};

pub(crate) fn all(routes: &Routes, allowed: &AllowedModels) -> Response<Bytes> {
    let usable = routes.names().filter(|name| allowed.contains(name)).map(model);
    page(&json!({ "object": "list", "data": usable.collect::<Vec<_>>() }))
}

pub(crate) fn one(name: &str) -> Response<Bytes> {
    page(&model(name))
}

fn page(page: &Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(page.to_string()));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// The creation time is unknown, but clients expect a number.
fn model(name: &str) -> Value {
    json!({ "id": name, "object": "model", "created": 0, "owned_by": "azure" })
}
