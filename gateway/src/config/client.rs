//! Reads the clients and the request classes.

use std::{collections::BTreeMap, time::Duration};

use sha2::{Digest, Sha256};
use tower_spillover::Credential;

use super::{
    Auth, CertificateName, Class, Client, Clients, Identities, Permissions, client_key,
    endpoint::strip_field,
    first_token::of_class,
    model::Models,
    toml::{DAY, Section, Value},
};

pub(super) type Classes = BTreeMap<String, Class>;

pub(super) fn classes(section: &Section<'_>) -> Classes {
    let mut classes = Classes::new();
    for (name, _, value) in section.entries() {
        check_name(&value, name);
        let Some(mut section) = value.section() else { continue };
        let rank = section.get("rank").and_then(|value| value.whole(0..256));
        let class = Class {
            rank: rank.and_then(|rank| u8::try_from(rank).ok()).unwrap_or_default(),
            max_wait: section.get("max_wait").and_then(|value| value.duration(Duration::ZERO, DAY)),
            spills: section.flag("spill", true),
            first_token: section.get("first_token").and_then(|value| of_class(&value)),
        };
        section.finish();
        classes.insert(name.to_owned(), class);
    }
    classes
}

/// The sources of identities other than keys.
pub(super) struct Sources {
    pub(super) tokens: bool,
    pub(super) certificates: bool,
}

pub(super) fn clients(
    mut section: Section<'_>,
    models: &Models,
    classes: &Classes,
    sources: &Sources,
) -> Clients {
    let open = section.get("open");
    let is_open = open.as_ref().and_then(Value::flag);
    let entries = section.entries();
    match (&open, is_open) {
        (Some(open), Some(true)) if !entries.is_empty() => {
            open.report("cannot be combined with clients; remove one of the two");
        }
        (_, Some(true)) => {}
        (Some(_), None) => {}
        _ if entries.is_empty() => {
            section.report("no client is configured; add [clients.NAME] with keys, or open = true")
        }
        _ => {}
    }
    let mut owners = Owners::default();
    owners.keys.extend(backend_keys(models));
    let mut clients = Vec::new();
    for (name, _, value) in entries {
        check_name(&value, name);
        if let Some(section) = value.section() {
            clients.push(client(name, section, models, classes, sources, &mut owners));
        }
    }
    if is_open == Some(true) { Clients::Open } else { Clients::Keyed(clients) }
}

fn client(
    name: &str,
    mut section: Section<'_>,
    models: &Models,
    classes: &Classes,
    sources: &Sources,
    owners: &mut Owners,
) -> Client {
    let identities = identities(&mut section, sources, owners);
    let keys = if identities == Identities::default() && !has_identities(&section) {
        section.required("keys", "add keys = [\"sha256:...\"] or [\"env:NAME\"]")
    } else {
        section.get("keys")
    };
    let allowed = section.get("models").and_then(|value| value.list());
    let class = section.get("class").and_then(|value| {
        let class = value.text()?;
        if !classes.contains_key(class) {
            let known: Vec<&str> = classes.keys().map(String::as_str).collect();
            value.unknown(class, &known);
        }
        Some(class.to_owned())
    });
    let rate = section.get("requests_per_second");
    let group = section.get("group").and_then(|value| {
        let group = value.name()?;
        check_name(&value, group);
        Some(group.to_owned())
    });
    let client = Client {
        name: name.to_owned(),
        group,
        keys: keys.map(|value| hashes(&value, &mut owners.keys)).unwrap_or_default(),
        identities,
        models: allowed.map(|list| list.iter().filter_map(|value| models.find(value)).collect()),
        class,
        requests_per_second: rate.and_then(|value| value.number(0.001, 1_000_000.0)),
        concurrency: section
            .get("concurrency")
            .and_then(|value| value.whole(1..1_000_001))
            .and_then(|count| usize::try_from(count).ok()),
        may: section.get("may").map(|value| permissions(&value)).unwrap_or_default(),
    };
    section.finish();
    client
}

/// The keys of backends: a client that has one could bypass this gateway.
fn backend_keys(models: &Models) -> impl Iterator<Item = ([u8; 32], String)> {
    models.models.iter().flat_map(|(name, model)| {
        model.ptu.iter().chain(&model.standard).filter_map(move |backend| match &backend.auth {
            Auth::Key(key) if !key.expose().is_empty() => {
                let owner = format!("that of a backend of models.{name}");
                Some((Sha256::digest(key.expose()).into(), owner))
            }
            _ => None,
        })
    })
}

/// Identities that are already taken.
#[derive(Default)]
struct Owners {
    keys: BTreeMap<[u8; 32], String>,
    /// Keyed by the list's key and the name in it.
    names: BTreeMap<(&'static str, String), String>,
}

fn identities(section: &mut Section<'_>, sources: &Sources, owners: &mut Owners) -> Identities {
    let mut names = |key: &'static str, is_possible: bool, needs: &str| {
        let Some(list) = section.get(key) else { return Vec::new() };
        if !is_possible {
            list.report(format!("would never match; add {needs}"));
        }
        let values = list.list().unwrap_or_default();
        let texts = values.iter().filter_map(|value| {
            let text = value.name()?.to_owned();
            let text = if key == CERTIFICATES {
                certificate_name(value, &text)?.to_string()
            } else {
                text
            };
            if let Some(owner) = owners.names.insert((key, text.clone()), value.key.clone()) {
                value.report(format!("is {owner} as well; give it to one client only"));
            }
            Some(text)
        });
        texts.collect()
    };
    let tokens = "[tokens] with the issuer";
    Identities {
        roles: names("roles", sources.tokens, tokens),
        groups: names("groups", sources.tokens, tokens),
        subjects: names("subjects", sources.tokens, tokens),
        certificates: names(CERTIFICATES, sources.certificates, "client_ca to listen.tls")
            .iter()
            .filter_map(|name| CertificateName::read(name))
            .collect(),
    }
}

fn has_identities(section: &Section<'_>) -> bool {
    ["roles", "groups", "subjects", CERTIFICATES].iter().any(|key| section.has(key))
}

fn certificate_name(value: &Value<'_>, text: &str) -> Option<CertificateName> {
    let name = CertificateName::read(text);
    if name.is_none() {
        value.report(format!(
            "{text:?} is not a name of a certificate; use a URI, a DNS name, or \"CN=NAME\""
        ));
    }
    name
}

const CERTIFICATES: &str = "certificates";

fn hashes(list: &Value<'_>, owners: &mut BTreeMap<[u8; 32], String>) -> Vec<[u8; 32]> {
    let Some(values) = list.list() else { return Vec::new() };
    if values.is_empty() {
        list.report("has no key, so it could not be used; add one");
    }
    let mut hashes = Vec::new();
    for value in values {
        let Some(hash) = hash(&value) else { continue };
        if let Some(owner) = owners.insert(hash, value.key.clone()) {
            value.report(format!("is the same key as {owner}; give each client its own"));
        }
        hashes.push(hash);
    }
    hashes
}

/// The hash of a key. Refuses a literal key in the file, without repeating it.
fn hash(value: &Value<'_>) -> Option<[u8; 32]> {
    let text = value.text()?;
    if let Some(digits) = text.strip_prefix("sha256:") {
        let hash = from_hex(digits);
        if hash.is_none() {
            value.report("is not a SHA-256; write its 64 hexadecimal digits after sha256:");
        }
        if hash.as_ref().is_some_and(client_key::is_of_no_key) {
            value.report("is the hash of nothing, or of a placeholder; hash a key: printf %s KEY | sha256sum");
            return None;
        }
        return hash;
    }
    if !text.starts_with("env:") && !text.starts_with("file:") {
        value.report(
            "is neither sha256:DIGITS, env:NAME nor file:PATH; keep the key out of this file: \
             printf %s KEY | sha256sum",
        );
        return None;
    }
    let secret = value.secret()?;
    Credential::api_key(secret.expose()).map_err(|error| value.report(strip_field(&error))).ok()?;
    if let Some(weakness) = client_key::weakness(secret.expose()) {
        value.report(weakness);
        return None;
    }
    Some(Sha256::digest(secret.expose()).into())
}

fn from_hex(digits: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = digits
        .chars()
        .map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()))
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    if digits.len() == 64 { bytes.try_into().ok() } else { None }
}

fn permissions(list: &Value<'_>) -> Permissions {
    let mut may = Permissions::default();
    for value in list.list().unwrap_or_default() {
        match value.text() {
            None => {}
            Some("max-wait") => may.max_wait = true,
            Some("class") => may.class = true,
            Some("no-spill") => may.no_spill = true,
            Some("trace") => may.trace = true,
            Some("backend") => may.backend = true,
            Some("operate") => may.operate = true,
            Some(other) => value.unknown(other, &PERMISSIONS),
        }
    }
    may
}

const PERMISSIONS: [&str; 6] = ["max-wait", "class", "no-spill", "trace", "backend", "operate"];

/// Names are sent in headers and used as metric labels.
fn check_name(value: &Value<'_>, name: &str) {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    if name.is_empty() || !name.bytes().all(plain) {
        value.report(format!("{name:?} is not a name; use letters, digits and signs like `-`"));
    }
}
