//! The list of models, as OpenAI's clients read it: those that the asking client may use.

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use serde_json::{Value, json};

use super::model_routing;
use crate::serve::{inbound::clients::Caller, record::request_guard::Ledger, refusal::Refusal};

/// All of them, or the one called `id`. A backend would list its own, by names that nobody uses
/// here.
pub(crate) fn page(
    ledger: &mut Ledger,
    caller: &Caller,
    id: Option<&str>,
) -> Result<Response<Bytes>, Refusal> {
    let page = match id {
        Some(id) => model(&model_routing::by_name(ledger, caller, Some(id))?.model.name),
        None => {
            let names = ledger.site.running.models.keys();
            let usable = names.filter(|name| caller.may_use(name)).map(|name| model(name));
            json!({ "object": "list", "data": usable.collect::<Vec<_>>() })
        }
    };
    let mut response = Response::new(Bytes::from(page.to_string()));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

/// When it was made is not known here, and clients want a number.
fn model(name: &str) -> Value {
    json!({ "id": name, "object": "model", "created": 0, "owned_by": "azure" })
}
