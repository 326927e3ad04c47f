//! Queries a running gateway for the requests with an id.

use std::fmt::Write as _;

use bytes::Bytes;
use http::{Request, Uri, header};
use serde_json::Value;

use super::args::WhyArgs;
use crate::{command_key, files, http_client::Client};

/// The answer of `/-/requests` for the id.
pub(super) async fn ask(args: &WhyArgs) -> Result<Value, String> {
    let uri = address(args)?;
    let mut request = Request::get(uri).header(header::ACCEPT, "application/json");
    if let Some(key) = &args.key {
        let (name, value) = command_key::header(key, command_key::KeyHeader::ApiKey)
            .map_err(|problem| format!("--{problem}"))?;
        request = request.header(name, value);
    }
    let request = request.body(Bytes::new()).map_err(|error| error.to_string())?;
    let trust = match &args.trust {
        None => None,
        Some(file) => {
            let pem = files::read(file, files::MAX_FILE_BYTES, files::PATIENCE);
            Some(pem.map_err(|error| format!("{}: {error}: check --trust", file.display()))?)
        }
    };
    let client = Client::trusting(trust.as_deref()).map_err(|error| error.to_string())?;
    let answer = client.send(request).await.map_err(|error| format!("{error}: check --admin"))?;
    let document: Option<Value> = serde_json::from_slice(answer.body()).ok();
    match (answer.status().as_u16(), document) {
        (200, Some(document)) => Ok(document),
        (200, None) => Err("the answer is not JSON: check --admin".to_owned()),
        (status, document) => {
            let message = document.as_ref().and_then(|it| it["error"]["message"].as_str());
            let remedy = match status {
                401 => "send the key of a client that may operate by --key",
                403 => "the client of --key needs may = [\"operate\"]",
                404 => {
                    "this address has no page for operators: use listen.admin, or a key of a client \
                     that may operate"
                }
                _ => "check --admin",
            };
            let mut problem = format!("the gateway answered {status}");
            if let Some(message) = message {
                // From another machine, so it may contain anything.
                let shown = message.chars().filter(|c| !c.is_control()).take(MAX_MESSAGE_CHARS);
                let _ = write!(problem, " ({})", shown.collect::<String>());
            }
            Err(format!("{problem}: {remedy}"))
        }
    }
}

fn address(args: &WhyArgs) -> Result<Uri, String> {
    // Not repeated, because it could contain a password.
    let wrong = || "--admin is not a URL like http://127.0.0.1:9090".to_owned();
    let given: Uri = args.admin.trim().parse().map_err(|_| wrong())?;
    let scheme = given.scheme_str().filter(|scheme| ["http", "https"].contains(scheme));
    let (Some(scheme), Some(authority)) = (scheme, given.authority()) else { return Err(wrong()) };
    if authority.as_str().contains('@') {
        return Err("--admin: passwords in URLs are not sent: use --key".to_owned());
    }
    let base = given.path().trim_end_matches('/');
    let id = command_key::escaped(&args.id);
    format!("{scheme}://{authority}{base}/-/requests?id={id}").parse().map_err(|_| wrong())
}

const MAX_MESSAGE_CHARS: usize = 300;
