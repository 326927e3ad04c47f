//! Checks every model and deployment that a request names, for a client that may not use all of
//! them.
//!
//! The model that a request is routed by is one of many: tools, graders, sessions and batches name
//! others, which the backend uses under the name that it reads. So every member whose name says
//! that it selects a model is checked, at any depth, and anything that parsers could interpret
//! differently is refused.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use tower_spillover::azure::{ApiPath, percent};

use super::{
    allowed_models::AllowedModels,
    model_walk::{self, Found, letters, selects_model},
    routes::Routes,
    strict_form::{self, Field},
};
use crate::serve::refusal::Refusal;

/// The models that a client's requests may name.
#[derive(Clone, Copy)]
pub(crate) struct NamedModels<'a> {
    pub(crate) routes: &'a Routes,
    pub(crate) allowed: &'a AllowedModels,
}

impl NamedModels<'_> {
    /// Checks the models in the query and the headers.
    ///
    /// # Errors
    ///
    /// If one is not allowed for this client.
    pub(crate) fn check_head(self, head: &http::request::Parts) -> Result<(), Refusal> {
        if !self.allowed.is_restricted() {
            return Ok(());
        }
        let pairs = head.uri.query().unwrap_or_default().split(['&', ';']);
        for (key, value) in pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))) {
            let [key, value] = [key, value].map(|text| text.replace('+', " "));
            let key = percent::decode_text(&key).ok_or_else(|| bad(UNREADABLE))?;
            if selects_model(&letters(&key)) {
                self.check(&percent::decode_text(&value).ok_or_else(|| bad(UNREADABLE))?)?;
            }
        }
        for (_, value) in
            head.headers.iter().filter(|(name, _)| selects_model(&letters(name.as_str())))
        {
            self.check(value.to_str().map_err(|_| bad(UNREADABLE))?.trim())?;
        }
        Ok(())
    }

    /// Checks the models in a complete body. If `is_routed`, the gateway routes by the outermost
    /// `model` itself and replaces it with the backend's own name. Returns whether the client must
    /// own what the request refers to, because that selects the model.
    ///
    /// # Errors
    ///
    /// If a model is not allowed for this client, or the body cannot be read.
    pub(crate) fn check_body(
        self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        body: &Bytes,
        is_routed: bool,
    ) -> Result<bool, Refusal> {
        if !self.allowed.is_restricted() {
            return Ok(false);
        }
        let rest = ApiPath::of(path).operation(path).unwrap_or_default();
        let rest: Vec<&str> = rest.split('/').filter(|segment| !segment.is_empty()).collect();
        let named = if body.is_empty() {
            Named::Nowhere
        } else {
            self.check_content(&rest, headers, body, is_routed)?
        };
        if *method != Method::POST {
            return Ok(rest == ["batches"]);
        }
        match *rest {
            // A secret opens sessions directly, with any model if it names none.
            ["realtime", "client_secrets"] | ["realtime", "calls", _, "accept"]
                if named == Named::Nowhere =>
            {
                Err(unseen())
            }
            // The requests of a batch were checked when its file was uploaded, if this client did
            // that. The operations below use the model of another object, or of its graders.
            ["batches", ..]
            | ["evals", _, "runs", ..]
            | ["threads", _, "runs", _, "submit_tool_outputs"]
            | ["videos", _, "remix"]
            | ["fine_tuning", "jobs", _, _, ..] => Ok(true),
            ["threads", "runs"] | ["threads", _, "runs"] | ["videos", "edits" | "extensions"] => {
                Ok(named != Named::Outermost)
            }
            _ => Ok(false),
        }
    }

    fn check_content(
        self,
        rest: &[&str],
        headers: &HeaderMap,
        body: &Bytes,
        is_routed: bool,
    ) -> Result<Named, Refusal> {
        let encodings = headers.get_all(header::CONTENT_ENCODING).iter();
        if encodings
            .into_iter()
            .any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
        {
            return Err(unsupported(
                "The body is compressed, and it cannot be seen which model it asks for. Send it as \
                 it is.",
            ));
        }
        let mut kinds = headers.get_all(header::CONTENT_TYPE).iter();
        let kind = kinds.next().map(|kind| kind.to_str().unwrap_or_default());
        if kinds.next().is_some() {
            return Err(bad("The request has two content types."));
        }
        let kind = kind.unwrap_or("application/json").to_ascii_lowercase();
        let (essence, parameters) = kind.split_once(';').unwrap_or((&kind, ""));
        match essence.trim() {
            essence if essence.starts_with("multipart/") => {
                self.check_form(rest, headers, body, is_routed)
            }
            // A session description, which names no model, and is not JSON.
            "application/sdp" if rest == ["realtime", "calls"] && body.starts_with(b"v=0") => {
                Ok(Named::Nowhere)
            }
            // The service may read it as JSON whatever its type.
            _ => {
                if parameters.contains("charset") && !parameters.replace('"', "").contains("=utf-8")
                {
                    return Err(unsupported("JSON is UTF-8 (RFC 8259)."));
                }
                self.check_json(rest, body, is_routed)
            }
        }
    }

    fn check_json(self, rest: &[&str], body: &[u8], is_routed: bool) -> Result<Named, Refusal> {
        let found = self.walk(body, is_routed)?;
        // The requests of a batch are in a file that is not checked here.
        let is_unseen = match *rest {
            ["batches"] => found.has_input_blob,
            ["files", ..] | ["uploads"] => !is_other_purpose(&found.purposes),
            _ => false,
        };
        if is_unseen { Err(unseen()) } else { Ok(Named::in_object(&found)) }
    }

    fn check_form(
        self,
        rest: &[&str],
        headers: &HeaderMap,
        body: &[u8],
        is_routed: bool,
    ) -> Result<Named, Refusal> {
        let kind = headers.get(header::CONTENT_TYPE).map(http::HeaderValue::as_bytes);
        let fields = strict_form::fields(kind.unwrap_or_default(), body);
        let fields = fields.ok_or_else(|| bad(UNREADABLE))?;
        let (mut named, mut purposes) = (Named::Nowhere, Vec::new());
        for Field { name, is_file, content } in &fields {
            let text = || std::str::from_utf8(content).map_err(|_| bad(UNREADABLE));
            // Some servers decode names. The gateway itself does not, so a `model` that it reads and
            // replaces is spelled as it stands here.
            let decoded = percent::decode_text(name).ok_or_else(|| bad(UNREADABLE))?;
            match &*letters(&decoded) {
                "purpose" if name != "purpose" => return Err(bad(PURPOSE)),
                "purpose" => purposes.push(text()?.to_owned()),
                letters if selects_model(letters) => {
                    if !(is_routed && name == "model") {
                        self.check(text()?)?;
                    }
                    if name == "model" {
                        named = Named::Outermost;
                    }
                }
                // The session of a call.
                "session" => named = named.max(Named::in_object(&self.walk(content, false)?)),
                letters if letters.ends_with("promptid") => return Err(unseen()),
                // Plain text, even if it looks like JSON.
                "prompt" => {}
                _ if !is_file && looks_like_json(content) => {
                    self.walk_value(content)?;
                }
                _ => {}
            }
        }
        if matches!(rest, ["files"] | ["uploads"]) && !is_other_purpose(&purposes) {
            if rest == ["uploads"] {
                // Its content arrives in parts.
                return Err(unseen());
            }
            if purposes != ["batch"] {
                return Err(bad(PURPOSE));
            }
            for field in fields.iter().filter(|field| field.name != "purpose") {
                self.check_batch(field.content)?;
            }
        }
        Ok(named)
    }

    /// Checks the input of a batch: one request per line.
    fn check_batch(self, lines: &[u8]) -> Result<(), Refusal> {
        let lines = lines.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
        for line in lines.filter(|line| !line.is_empty()) {
            let found = self.walk(line, false)?;
            if !found.has_request || found.has_odd_url {
                return Err(bad("Each line of a batch has to name its model in `body`, once."));
            }
        }
        Ok(())
    }

    /// Walks a text that has to be an object.
    fn walk(self, text: &[u8], is_routed: bool) -> Result<Found, Refusal> {
        let (found, is_allowed) = model_walk::object(text, is_routed, &|name| self.permits(name))
            .filter(|(found, _)| found.is_object)
            .ok_or_else(|| bad(UNREADABLE))?;
        admit(found, is_allowed)
    }

    fn walk_value(self, text: &[u8]) -> Result<Found, Refusal> {
        let (found, is_allowed) =
            model_walk::value(text, &|name| self.permits(name)).ok_or_else(|| bad(UNREADABLE))?;
        admit(found, is_allowed)
    }

    fn check(self, name: &str) -> Result<(), Refusal> {
        if self.permits(name) { Ok(()) } else { Err(forbidden()) }
    }

    /// No default replaces an unknown name here, because the backend would use it.
    fn permits(self, name: &str) -> bool {
        self.routes.configured(name).is_some_and(|route| self.allowed.contains(&route.model.name))
    }
}

/// Where a body names a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Named {
    Nowhere,
    /// Inside something in the body.
    Within,
    Outermost,
}

impl Named {
    const fn in_object(found: &Found) -> Self {
        match found {
            Found { has_model: true, .. } => Self::Outermost,
            Found { names_any: true, .. } => Self::Within,
            _ => Self::Nowhere,
        }
    }
}

fn admit(found: Found, is_allowed: bool) -> Result<Found, Refusal> {
    if !is_allowed {
        Err(forbidden())
    } else if found.has_stored_prompt {
        // The stored prompt names the model.
        Err(unseen())
    } else {
        Ok(found)
    }
}

/// Whether a file is declared unambiguously for another purpose than a batch.
fn is_other_purpose(purposes: &[String]) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || matches!(byte, b'_' | b'-');
    matches!(purposes, [purpose] if purpose != "batch" && !purpose.is_empty() && purpose.bytes().all(is_plain))
}

/// Whether some parser could take a text for a JSON object, whatever precedes it.
fn looks_like_json(text: &[u8]) -> bool {
    matches!(text.iter().find(|byte| byte.is_ascii_graphic()), Some(b'{' | b'['))
}

fn forbidden() -> Refusal {
    Refusal::new(
        StatusCode::FORBIDDEN,
        "403",
        "This client may not use a model or deployment that the request names, or `model` is not one \
         text.",
    )
}

fn unseen() -> Refusal {
    Refusal::new(
        StatusCode::FORBIDDEN,
        "403",
        "It cannot be seen which model is asked for. Name it in the body, and upload the input of a \
         batch as one form.",
    )
}

fn unsupported(text: &'static str) -> Refusal {
    Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", text)
}

fn bad(text: &'static str) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "BadRequest", text)
}

const PURPOSE: &str = "The form has to state the file's purpose in a single plain field `purpose`.";
const UNREADABLE: &str = "It cannot be seen that this client may use what the request asks for: it is \
                          not UTF-8, not valid JSON, not a plain form, or names something twice.";
