//! Walks a JSON value strictly, checking every member that selects a model.

use std::{borrow::Cow, cell::Cell};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The result of a walk.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) is_object: bool,
    /// It has a `model` that is a string.
    pub(super) has_model: bool,
    /// Some `model` in it is a string.
    pub(super) names_any: bool,
    /// Something in it has a stored prompt, which names a model, without a `model` beside it.
    pub(super) has_stored_prompt: bool,
    /// It has one `body` that names its model, like a request in a batch.
    pub(super) has_request: bool,
    /// A `url` that names a deployment, or might.
    pub(super) has_odd_url: bool,
    pub(super) has_input_blob: bool,
    /// As written; empty for values that are not strings.
    pub(super) purposes: Vec<String>,
    is_text: bool,
    word: Option<String>,
    /// It, or an element of this list, has an `id`.
    has_id: bool,
}

/// Walks a text whose outermost object the gateway routes by if `is_routed`. Also returns whether
/// everything it names is allowed. `None` if it is not JSON in UTF-8.
pub(super) fn object(
    text: &[u8],
    is_routed: bool,
    permits: &dyn Fn(&str) -> bool,
) -> Option<(Found, bool)> {
    walk(text, Place::Outermost { is_routed }, permits)
}

/// The same for any value.
pub(super) fn value(text: &[u8], permits: &dyn Fn(&str) -> bool) -> Option<(Found, bool)> {
    walk(text, Place::Inner, permits)
}

fn walk(text: &[u8], place: Place, permits: &dyn Fn(&str) -> bool) -> Option<(Found, bool)> {
    let seen = Seen::default();
    let mut json = serde_json::Deserializer::from_str(std::str::from_utf8(text).ok()?);
    let mut found = Walk { permits, seen: &seen, place }.deserialize(&mut json).ok()?;
    json.end().ok()?;
    found.names_any = seen.names_any.get();
    found.has_stored_prompt = seen.has_stored_prompt.get();
    Some((found, !seen.is_refused.get()))
}

/// The letters and digits of a name (of a member, field, header or parameter), in lower case.
pub(super) fn letters(name: &str) -> String {
    let letters = name.chars().filter(char::is_ascii_alphanumeric);
    letters.map(|letter| letter.to_ascii_lowercase()).collect()
}

/// Whether a name with these letters selects a model by its value.
pub(super) fn selects_model(letters: &str) -> bool {
    let ends = ["model", "models", "modelid", "modelname", "engine"];
    ends.iter().any(|end| letters.ends_with(end)) || letters.contains("deployment")
}

/// What was seen anywhere in the value.
#[derive(Default)]
struct Seen {
    is_refused: Cell<bool>,
    names_any: Cell<bool>,
    has_stored_prompt: Cell<bool>,
}

#[derive(Clone, Copy)]
struct Walk<'a> {
    permits: &'a dyn Fn(&str) -> bool,
    seen: &'a Seen,
    place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The outermost object; the gateway may route by its `model`.
    Outermost {
        is_routed: bool,
    },
    Inner,
    /// An object of a JSON schema, whose member names the caller chooses.
    Properties,
    /// The value of a member that selects a model, or of one in a schema with such a name.
    Selector {
        in_schema: bool,
    },
    /// The value of the outermost `model`, by which the request is routed.
    Routed,
    /// A string that is needed.
    Word,
}

impl Walk<'_> {
    /// A value that cannot name a model.
    fn other(self) -> Found {
        if self.place == (Place::Selector { in_schema: false }) {
            self.seen.is_refused.set(true);
        }
        Found::default()
    }

    fn place_of(self, key: &str, letters: &str) -> Place {
        let in_schema = self.place == Place::Properties;
        let is_outermost = matches!(self.place, Place::Outermost { .. });
        match letters {
            "model" if key == "model" && self.place == (Place::Outermost { is_routed: true }) => {
                Place::Routed
            }
            _ if selects_model(letters) => Place::Selector { in_schema },
            "purpose" | "url" if is_outermost => Place::Word,
            _ if !in_schema && SCHEMAS.contains(&key) => Place::Properties,
            _ => Place::Inner,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<Found, D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E>(self, text: &str) -> Result<Found, E> {
        if matches!(self.place, Place::Selector { .. }) && !(self.permits)(text) {
            self.seen.is_refused.set(true);
        }
        let word = (self.place == Place::Word).then(|| text.to_owned());
        Ok(Found { is_text: true, word, ..Found::default() })
    }

    fn visit_bool<E>(self, _: bool) -> Result<Found, E> {
        Ok(self.other())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Found, E> {
        Ok(self.other())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Found, E> {
        Ok(self.other())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Found, E> {
        Ok(self.other())
    }

    /// A null names nothing.
    fn visit_unit<E>(self) -> Result<Found, E> {
        Ok(Found::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Found, A::Error> {
        let is_selector = matches!(self.place, Place::Selector { .. });
        let place = if is_selector { self.place } else { Place::Inner };
        let mut found = Found::default();
        while let Some(inner) = values.next_element_seed(Walk { place, ..self })? {
            found.has_id |= inner.has_id;
        }
        Ok(found)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Found, A::Error> {
        let mut found = Found { is_object: true, ..self.other() };
        let (mut models, mut bodies) = (0_usize, 0_usize);
        let (mut are_texts, mut has_prompt) = (true, false);
        while let Some(key) = members.next_key::<Cow<'_, str>>()? {
            if OWN_WORDS.contains(&&*key) {
                members.next_value::<IgnoredAny>()?;
                continue;
            }
            let letters = letters(&key);
            let place = self.place_of(&key, &letters);
            let inner = members.next_value_seed(Walk { place, ..self })?;
            if self.place == Place::Properties {
                continue;
            }
            match &*letters {
                "model" => {
                    models += 1;
                    are_texts &= inner.is_text;
                    found.has_model |= key == "model";
                }
                "prompt" => has_prompt |= inner.has_id,
                "id" => found.has_id = true,
                "body" => {
                    bodies += 1;
                    found.has_request = key == "body" && inner.has_model;
                }
                "purpose" => {
                    let word = inner.word.filter(|_| key == "purpose");
                    found.purposes.push(word.unwrap_or_default());
                }
                "url" => {
                    let url = inner.word.unwrap_or_default().to_ascii_lowercase();
                    let is_plain = key == "url" && url.starts_with('/');
                    found.has_odd_url |=
                        !is_plain || url.contains("deployment") || url.contains('%');
                }
                _ => {}
            }
            found.has_input_blob |= letters.contains("blob");
        }
        found.has_model &= are_texts;
        found.has_request &= bodies == 1;
        let is_outermost = matches!(self.place, Place::Outermost { .. });
        if is_outermost && models > 0 && !(models == 1 && are_texts) {
            self.seen.is_refused.set(true);
        }
        if models > 0 && are_texts {
            self.seen.names_any.set(true);
        }
        if has_prompt && !found.has_model {
            self.seen.has_stored_prompt.set(true);
        }
        Ok(found)
    }
}

/// Members whose content the caller chooses and the service never uses as a model.
const OWN_WORDS: [&str; 3] = ["metadata", "attributes", "variables"];
/// Members of a JSON schema that contain schemas under names that the caller chooses.
const SCHEMAS: [&str; 5] =
    ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"];
