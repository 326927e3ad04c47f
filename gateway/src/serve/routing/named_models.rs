//! Checks every model and deployment that a request names, for a client that may not use all of them.
//!
//! The model that a request is routed by is one of many: tools, graders, sessions and batches name more,
//! which the backend takes by the name that it reads. So every member is looked at whose name says that
//! it selects a model, wherever it stands, and what readers could take differently is refused.

use std::{borrow::Cow, cell::Cell};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use tower_spillover::azure::{Operation, percent};

use super::{
    allowed_models::AllowedModels,
    routes::Routes,
    strict_form::{self, Field},
};
use crate::serve::refusal::Refusal;

/// What a client's requests may name.
#[derive(Clone, Copy)]
pub(crate) struct NamedModels<'a> {
    pub(crate) routes: &'a Routes,
    pub(crate) allowed: &'a AllowedModels,
}

impl NamedModels<'_> {
    /// Checks what the query and the headers name.
    ///
    /// # Errors
    ///
    /// When it is not for this client.
    pub(crate) fn check_head(self, head: &http::request::Parts) -> Result<(), Refusal> {
        if !self.allowed.is_restricted() {
            return Ok(());
        }
        let pairs = head.uri.query().unwrap_or_default().split(['&', ';']);
        for (key, value) in pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))) {
            let [key, value] = [key, value].map(|text| text.replace('+', " "));
            let key = percent::decode_text(&key).ok_or_else(|| bad(UNREADABLE))?;
            if selects_model(&key) {
                self.check(&percent::decode_text(&value).ok_or_else(|| bad(UNREADABLE))?)?;
            }
        }
        for (_, value) in head.headers.iter().filter(|(name, _)| selects_model(name.as_str())) {
            self.check(value.to_str().map_err(|_| bad(UNREADABLE))?.trim())?;
        }
        Ok(())
    }

    /// Checks what a whole body names. The gateway routes by its outermost `model` itself where
    /// `is_routed`, and writes the backend's own name in its place.
    ///
    /// # Errors
    ///
    /// When something is not for this client, or cannot be read.
    pub(crate) fn check_body(
        self,
        path: &str,
        headers: &HeaderMap,
        body: &Bytes,
        is_routed: bool,
    ) -> Result<(), Refusal> {
        if !self.allowed.is_restricted() || body.is_empty() {
            return Ok(());
        }
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
                self.check_form(path, headers, body, is_routed)
            }
            // A session description, which names no model.
            "application/sdp" => Ok(()),
            // Whatever it is called, the service may read it as JSON.
            _ => {
                if parameters.contains("charset") && !parameters.replace('"', "").contains("=utf-8")
                {
                    return Err(unsupported("JSON is UTF-8 (RFC 8259)."));
                }
                self.check_json(path, body, is_routed)
            }
        }
    }

    fn check_json(self, path: &str, body: &[u8], is_routed: bool) -> Result<(), Refusal> {
        let mut found = Found::default();
        found.walk(self, body, is_routed)?;
        let operation = Operation::of(path).label();
        // What a batch asks for stands in a file that is not seen here.
        let is_unseen = match operation {
            "batches" => found.has_input_blob,
            "files" | "uploads" => found.is_for_batch,
            // The model stands in the prompt.
            "responses" => found.has_stored_prompt && !found.has_model,
            _ => false,
        };
        if is_unseen {
            let text = "It cannot be seen which model is asked for. Name it in the body, and upload \
                        the input of a batch as one form.";
            return Err(Refusal::new(StatusCode::FORBIDDEN, "403", text));
        }
        Ok(())
    }

    fn check_form(
        self,
        path: &str,
        headers: &HeaderMap,
        body: &[u8],
        is_routed: bool,
    ) -> Result<(), Refusal> {
        let kind = headers.get(header::CONTENT_TYPE).map(http::HeaderValue::as_bytes);
        let fields = strict_form::fields(kind.unwrap_or_default(), body);
        let fields = fields.ok_or_else(|| bad(UNREADABLE))?;
        for Field { name, is_file, content } in &fields {
            let text = || std::str::from_utf8(content).map_err(|_| bad(UNREADABLE));
            let name = percent::decode_text(name).ok_or_else(|| bad(UNREADABLE))?;
            if selects_model(&name) && !(is_routed && name == "model") {
                self.check(text()?)?;
            } else if !is_file && matches!(content.trim_ascii_start(), [b'{' | b'[', ..]) {
                // The session of a call. What is no JSON is nothing but text to the service.
                if Found::default().walk_if_json(self, content) == Some(false) {
                    return Err(forbidden());
                }
            }
        }
        if Operation::of(path).label() == "files" && fields.iter().any(is_batch_purpose) {
            for field in fields.iter().filter(|field| !is_purpose(field)) {
                self.check_batch(field.content)?;
            }
        }
        Ok(())
    }

    /// Checks the input of a batch: a request in each line.
    fn check_batch(self, lines: &[u8]) -> Result<(), Refusal> {
        let lines = lines.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
        for line in lines.filter(|line| !line.is_empty()) {
            let mut found = Found::default();
            found.walk(self, line, false)?;
            if !found.has_inner_model || found.has_deployment_url {
                return Err(bad("Each line of a batch has to name its model in `body`."));
            }
        }
        Ok(())
    }

    fn check(self, name: &str) -> Result<(), Refusal> {
        if self.permits(name) { Ok(()) } else { Err(forbidden()) }
    }

    /// No default stands in for a name that the gateway does not have: the backend would take it.
    fn permits(self, name: &str) -> bool {
        self.routes.configured(name).is_some_and(|route| self.allowed.contains(&route.model.name))
    }
}

/// Whether the name of a member, a field, a header or a parameter says that its value selects a model,
/// in whatever case and with whatever between its words.
fn selects_model(name: &str) -> bool {
    let letters =
        name.bytes().filter(u8::is_ascii_alphanumeric).map(|byte| byte.to_ascii_lowercase());
    let name: Vec<u8> = letters.collect();
    let ends = ["model", "models", "modelid", "modelname", "engine"];
    ends.iter().any(|end| name.ends_with(end.as_bytes()))
        || memchr::memmem::find(&name, b"deployment").is_some()
}

fn is_purpose(field: &Field<'_>) -> bool {
    field.name.trim().eq_ignore_ascii_case("purpose")
}

fn is_batch_purpose(field: &Field<'_>) -> bool {
    is_purpose(field) && field.content.to_ascii_lowercase().trim_ascii().starts_with(b"batch")
}

/// What a walk through a JSON text found.
#[derive(Default)]
struct Found {
    has_model: bool,
    /// In `body`, as a request of a batch has it.
    has_inner_model: bool,
    has_deployment_url: bool,
    has_input_blob: bool,
    has_stored_prompt: bool,
    is_for_batch: bool,
}

impl Found {
    fn walk(
        &mut self,
        names: NamedModels<'_>,
        text: &[u8],
        is_routed: bool,
    ) -> Result<(), Refusal> {
        let is_allowed = Cell::new(true);
        let walk = Walk { names, is_allowed: &is_allowed, place: Place::Outermost { is_routed } };
        let text = std::str::from_utf8(text).map_err(|_| bad(UNREADABLE))?;
        let mut json = serde_json::Deserializer::from_str(text);
        let found = walk.deserialize(&mut json).map_err(|_| bad(UNREADABLE))?;
        json.end().map_err(|_| bad(UNREADABLE))?;
        *self = found.ok_or_else(|| bad(UNREADABLE))?;
        if is_allowed.get() { Ok(()) } else { Err(forbidden()) }
    }

    /// Whether all is allowed in a text that is JSON.
    fn walk_if_json(&mut self, names: NamedModels<'_>, text: &[u8]) -> Option<bool> {
        let is_allowed = Cell::new(true);
        let walk = Walk { names, is_allowed: &is_allowed, place: Place::Inner };
        let mut json = serde_json::Deserializer::from_slice(text);
        walk.deserialize(&mut json).ok()?;
        json.end().ok()?;
        Some(is_allowed.get())
    }
}

/// A walk through a JSON value; gives what was found in an outermost object.
#[derive(Clone, Copy)]
struct Walk<'a> {
    names: NamedModels<'a>,
    is_allowed: &'a Cell<bool>,
    place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The outermost object, whose `model` the gateway routes by, or does not.
    Outermost {
        is_routed: bool,
    },
    /// The request in a line of a batch.
    Request,
    Inner,
    /// The value of a member that selects a model.
    Selector,
    /// The value of the outermost `model`, by which the request is routed if it is a text.
    Routed,
    /// What else is found by: its text is given.
    Word,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    /// `None` for what is no object.
    type Value = Option<Found>;

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<Self::Value, D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = Option<Found>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        if self.place == Place::Selector && !self.names.permits(text) {
            self.is_allowed.set(false);
        }
        if self.place != Place::Word {
            return Ok(None);
        }
        let text = text.trim().to_ascii_lowercase();
        Ok(Some(Found {
            is_for_batch: text.starts_with("batch"),
            has_deployment_url: text.contains("deployment") || text.contains('%'),
            ..Found::default()
        }))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Self::Value, A::Error> {
        let is_selector = matches!(self.place, Place::Selector | Place::Routed);
        let place = if is_selector { Place::Selector } else { Place::Inner };
        while values.next_element_seed(Walk { place, ..self })?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut found = Found::default();
        let is_outermost = matches!(self.place, Place::Outermost { .. });
        while let Some(key) = members.next_key::<Cow<'_, str>>()? {
            let key = key.trim();
            if OWN_WORDS.iter().any(|own| key.eq_ignore_ascii_case(own)) {
                members.next_value::<IgnoredAny>()?;
                continue;
            }
            let place = match (self.place, key) {
                (Place::Outermost { is_routed: true }, "model") => Place::Routed,
                _ if selects_model(key) => Place::Selector,
                (Place::Outermost { .. }, "body") => Place::Request,
                (Place::Outermost { .. }, "purpose" | "url") => Place::Word,
                _ => Place::Inner,
            };
            let inner = members.next_value_seed(Walk { place, ..self })?;
            found.has_model |= key == "model";
            match (key, inner) {
                ("body", Some(request)) if is_outermost => {
                    found.has_inner_model |= request.has_model;
                }
                ("prompt", Some(_)) if is_outermost => found.has_stored_prompt = true,
                ("purpose", Some(word)) if is_outermost => found.is_for_batch |= word.is_for_batch,
                ("url", Some(word)) if is_outermost => {
                    found.has_deployment_url |= word.has_deployment_url;
                }
                _ => {}
            }
            found.has_input_blob |= is_outermost && key.to_ascii_lowercase().contains("blob");
        }
        Ok(Some(found))
    }
}

fn forbidden() -> Refusal {
    Refusal::new(
        StatusCode::FORBIDDEN,
        "403",
        "This client may not use a model or deployment that the request names.",
    )
}

fn unsupported(text: &'static str) -> Refusal {
    Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", text)
}

fn bad(text: &'static str) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "BadRequest", text)
}

/// Members in which a caller has words of its own, of which the service takes none for a model.
const OWN_WORDS: [&str; 3] = ["metadata", "attributes", "variables"];
const UNREADABLE: &str = "It cannot be seen that this client may use what the request asks for: it is \
                          not UTF-8, not valid JSON, not a plain form, or names something twice.";
