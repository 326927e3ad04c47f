//! Reads the section `[fleet]`: the state that replicas share.

use std::{collections::BTreeMap, time::Duration};

use toml::de::DeValue;
use tower_spillover::{
    entra::EntraTokens,
    fleet::{Fleet, Local, RedisStore},
};

use super::{
    Class, Entra, EntraKind, FleetSettings, Model, Secret, Share, client_key,
    endpoint::{is_loopback, strip_field},
    pem,
    toml::{Section, Value},
};

/// Reads the section; `entra` is the identity of the gateway.
pub(super) fn fleet(mut section: Section<'_>, entra: Option<&Entra>) -> Option<FleetSettings> {
    let name = section.required("name", "replicas with the same name share their state").and_then(
        |value| {
            let name = value.name()?;
            let fleet = Fleet::new(name, Local::new()).map(drop);
            fleet.map_err(|error| value.report(strip_field(&error))).ok()?;
            Some(name.to_owned())
        },
    );
    let allow_plain = section.flag("allow_plain", false);
    let store = section
        .required("store", "write it like \"rediss://redis.contoso.internal:6380\"")
        .and_then(|value| stores(&value, allow_plain));
    let sentinel = section.get("sentinel");
    let cluster = section.flag("cluster", false);
    if let (None, false, Some([_, _, ..])) = (&sentinel, cluster, store.as_deref())
        && let Some(value) = section.get("store")
    {
        value.report(
            "names several servers; with sentinels add sentinel = \"NAME\", their name for the \
             master, for a Redis Cluster cluster = true",
        );
    }
    if let (Some(value), true) = (&sentinel, cluster) {
        value
            .report("stands beside cluster = true; a cluster has no sentinels. Remove one of them");
    }
    let sentinel = sentinel.and_then(|value| value.name().map(str::to_owned));
    let user = section.text("user");
    let password = section.get("password").and_then(|value| value.secret());
    let auth = section.get("auth");
    if let Some(user) = section.get("user").filter(|_| !section.has("password") && auth.is_none()) {
        user.report("has no password; add password = \"env:NAME\", or auth = \"entra\"");
    }
    let entra = auth.and_then(|value| {
        value.one_of(&[("entra", ())])?;
        if section.has("password") {
            value.report("cannot be combined with `password`; remove one of the two");
        }
        if user.is_none() {
            value.report("needs `user`, the object id of the identity");
        }
        // Without [entra], which is reported, it is a placeholder.
        let entra = entra.cloned().unwrap_or(Entra {
            kind: EntraKind::Workload,
            scope: String::new(),
            authority: None,
        });
        Some(Entra { scope: EntraTokens::REDIS.to_owned(), ..entra })
    });
    let trust = section.get("trust");
    if let (Some(trust), Some(store)) = (&trust, &store)
        && !store.iter().any(|store| store.starts_with(TLS))
    {
        trust.report("has no effect without TLS; use rediss:// for `store`, or remove it");
    }
    let trust = trust.and_then(|value| pem::trust(&value));
    let timeout = section.get("timeout");
    let timeout = timeout.and_then(|value| value.duration(MIN_TIMEOUT, MAX_TIMEOUT));
    let secret = section.get("secret");
    let has_secret = secret.is_some();
    let share = section.get("share").map(|value| share(&value, has_secret));
    let share = share.unwrap_or_else(|| Share { sticky: has_secret, ..Share::default() });
    let secret = secret.and_then(|value| self::secret(&value));
    let sticky_age = section.get("sticky_age");
    if !share.sticky {
        for unused in [section.get("secret"), section.get("sticky_age")].into_iter().flatten() {
            unused.warn("has no effect without \"sticky\" in `share`; add that, or remove it");
        }
    }
    let sticky_age = sticky_age.and_then(|value| value.duration(MIN_STICKY_AGE, MAX_STICKY_AGE));
    section.finish();
    Some(FleetSettings {
        name: name?,
        store: store?,
        sentinel,
        cluster,
        user,
        password,
        entra,
        trust,
        timeout: timeout.unwrap_or(DEFAULT_TIMEOUT),
        share,
        secret,
        sticky_age: sticky_age.unwrap_or(DEFAULT_STICKY_AGE),
    })
}

/// The secret that ids are hashed under.
fn secret(value: &Value<'_>) -> Option<Secret> {
    let secret = value.secret()?;
    let used = RedisStore::new("redis://localhost").and_then(|store| store.secret(secret.expose()));
    used.map_err(|error| value.report(strip_field(&error))).ok()?;
    // Who can read the store can try guesses.
    if let Some(weakness) = client_key::weakness(secret.expose()) {
        value.report(weakness);
    }
    Some(secret)
}

/// The URL of a store, or those of its sentinels or of servers of a cluster.
fn stores(value: &Value<'_>, allow_plain: bool) -> Option<Vec<String>> {
    let DeValue::Array(_) = value.value else { return Some(vec![store(value, allow_plain)?]) };
    let list = value.list()?;
    if list.is_empty() {
        value.report("is empty; name a server");
        return None;
    }
    list.iter().map(|value| store(value, allow_plain)).collect()
}

/// The URL of a store. Never repeats it, because it may contain a password.
fn store(value: &Value<'_>, allow_plain: bool) -> Option<String> {
    let text = value.text()?.trim();
    let is_plain = text.starts_with(PLAIN);
    if !is_plain && !text.starts_with(TLS) {
        value.report("is neither rediss:// nor redis://; name one Redis or Valkey server");
        return None;
    }
    if text.contains('@') {
        value.report("contains a user or a password; use `user` and password = \"env:NAME\"");
        return None;
    }
    if let Err(error) = RedisStore::new(text) {
        value.report(strip_field(&error));
        return None;
    }
    if is_plain && !allow_plain && !is_loopback(text) {
        value.report(
            "would send the password over redis:// to another machine; use rediss://, or \
             allow_plain = true",
        );
        return None;
    }
    Some(text.to_owned())
}

/// What is shared. Only what is listed here can be: the rest is refused, not ignored.
fn share(value: &Value<'_>, has_secret: bool) -> Share {
    let mut share =
        Share { gates: false, budgets: false, cooldowns: false, rates: false, sticky: false };
    let list = value.list().unwrap_or_default();
    if list.is_empty() {
        value.report("shares nothing; remove the section, or name what is shared");
    }
    for word in list {
        match word.text() {
            Some("budgets") => share.budgets = true,
            Some("rates") => share.rates = true,
            Some("cooldowns") => share.cooldowns = true,
            Some("gates") => share.gates = true,
            Some("sticky") if !has_secret => {
                word.report(
                    "needs a secret, under which the store keeps hashes of ids; add \
                     secret = \"env:NAME\", the same for all replicas",
                );
            }
            Some("sticky") => share.sticky = true,
            Some(text) => {
                word.unknown(text, &["gates", "budgets", "cooldowns", "rates", "sticky"]);
            }
            None => {}
        }
    }
    share
}

/// Reports a timeout that takes a large part of the time that a request may wait.
pub(super) fn check_timeout(
    section: &mut Section<'_>,
    settings: &FleetSettings,
    models: &BTreeMap<String, Model>,
) {
    let of_classes = |model: &Model| -> Vec<Duration> {
        let own = |class: &Class| class.max_wait.unwrap_or(model.max_wait);
        model.classes.values().map(own).chain([model.max_wait]).collect()
    };
    let shortest = models.values().flat_map(of_classes).filter(|wait| !wait.is_zero()).min();
    if let Some(shortest) = shortest.filter(|wait| settings.timeout > *wait / 4) {
        let text = format!(
            "is more than a quarter of the shortest `max_wait`, {}; lower it",
            humantime::format_duration(shortest)
        );
        match section.get("timeout") {
            Some(value) => value.report(text),
            None => section.report(format!("`timeout`, by default 50ms, {text}")),
        }
    }
}

const PLAIN: &str = "redis://";
const TLS: &str = "rediss://";
const MIN_TIMEOUT: Duration = Duration::from_millis(1);
const MAX_TIMEOUT: Duration = Duration::from_secs(1);
const MIN_STICKY_AGE: Duration = Duration::from_secs(3_600);
const MAX_STICKY_AGE: Duration = Duration::from_secs(365 * DAY_SECONDS);
/// Conversations are continued within days. The service keeps responses for 30.
const DEFAULT_STICKY_AGE: Duration = Duration::from_secs(7 * DAY_SECONDS);
const DAY_SECONDS: u64 = 24 * 3_600;
/// The library's default.
const DEFAULT_TIMEOUT: Duration = Duration::from_millis(50);
