//! Reads the sections about the gateway itself: sockets, limits, telemetry, tokens.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tracing_subscriber::EnvFilter;

use super::{
    Entra, EntraKind, HeadTimeout, Http2, Limits, Listen, Secret, TelemetrySettings, Upstream,
    cors,
    operations::headers,
    pem,
    toml::{DAY, Section, Value},
};

pub(super) fn listen(mut section: Section<'_>) -> Listen {
    let default = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
    let address = section.get("address").and_then(|value| socket(&value)).unwrap_or(default);
    let tls = section.optional("tls").and_then(pem::tls);
    let admin = section.get("admin").and_then(|value| {
        let admin = socket(&value)?;
        if admin == address && admin.port() != 0 {
            value.report("is the address that clients use; choose another port");
        }
        Some(admin)
    });
    let drain = section.duration("drain", Duration::ZERO, Duration::from_secs(30));
    let cors = section.optional("cors").map(cors::cors);
    section.finish();
    Listen { address, tls, admin, drain, cors }
}

pub(super) fn limits(mut section: Section<'_>) -> Limits {
    let body = size(&mut section, "body", 1 << 10, 4 << 30, 32 << 20);
    let replay = size(&mut section, "replay", 0, 1 << 30, 4 << 20);
    let replay_total = section.get("replay_total").and_then(|value| {
        let total = value.size(0, 1 << 40)?;
        if total < replay {
            value.report(
                "is less than `replay`, the limit of one request; raise it, or lower `replay`",
            );
        }
        Some(total)
    });
    let replay_total = replay_total.unwrap_or_else(|| replay.max(128 << 20));
    let headers = count(&mut section, "headers", 1, 10_000, 100);
    // hyper panics below 8 KiB.
    let head = size(&mut section, "head", 8 << 10, 1 << 20, 64 << 10);
    let concurrency = count(&mut section, "concurrency", 1, 1_000_000, 20_000);
    let share = section.get("client_share").and_then(|value| value.number(0.01, 1.0));
    let head_timeout = section.duration("head_timeout", MIN_TIMEOUT, Duration::from_secs(30));
    let idle_timeout = section.duration("idle_timeout", MIN_TIMEOUT, Duration::from_secs(300));
    section.finish();
    Limits {
        body,
        replay: in_memory(replay),
        replay_total: usize::try_from(replay_total).unwrap_or(usize::MAX),
        headers,
        head: in_memory(head),
        concurrency,
        client_share: share.unwrap_or(0.5),
        head_timeout,
        idle_timeout,
    }
}

pub(super) fn upstream(mut section: Section<'_>) -> Upstream {
    let http2 = [("auto", Http2::Auto), ("always", Http2::Always), ("never", Http2::Never)];
    let upstream = Upstream {
        connect_timeout: section.duration("connect_timeout", MIN_TIMEOUT, Duration::from_secs(5)),
        head_timeout: head_timeout(&mut section).unwrap_or_default(),
        idle_timeout: section.duration("idle_timeout", MIN_TIMEOUT, Duration::from_secs(120)),
        idle_connection_timeout: section.duration(
            "idle_connection_timeout",
            MIN_TIMEOUT,
            Duration::from_secs(90),
        ),
        connection_age: section.duration(
            "connection_age",
            Duration::from_secs(1),
            Duration::from_secs(600),
        ),
        idle_connections: count(&mut section, "idle_connections", 0, 100_000, 256),
        http2: section.get("http2").and_then(|value| value.one_of(&http2)).unwrap_or_default(),
        trust: section.get("trust").and_then(|value| pem::trust(&value)).unwrap_or_default(),
        proxies: BTreeMap::new(),
        headers: section.get("headers").map(|list| headers(&list)).unwrap_or_default(),
    };
    section.finish();
    upstream
}

pub(super) fn head_timeout(section: &mut Section<'_>) -> Option<HeadTimeout> {
    Some(section.get("head_timeout")?.duration(MIN_TIMEOUT, DAY)?.into())
}

pub(super) fn telemetry(mut section: Section<'_>) -> TelemetrySettings {
    let log = section.get("log").and_then(|value| {
        let log = value.name()?;
        if EnvFilter::builder().parse(log).is_err() {
            value.report(format!(
                "{log:?} is not a filter; write a level such as \"info\", or \"info,hyper=warn\""
            ));
        }
        Some(log.to_owned())
    });
    let telemetry = TelemetrySettings {
        log: log.unwrap_or_else(|| "info".to_owned()),
        json: section.flag("json", true),
        otlp: section.get("otlp").and_then(|value| value.address().map(str::to_owned)),
        service_name: section.text("service_name").unwrap_or_else(|| "spillover".to_owned()),
        recent_requests: count(&mut section, "recent_requests", 0, 100_000, 1_000),
    };
    section.finish();
    telemetry
}

pub(super) fn entra(mut section: Section<'_>) -> Entra {
    let kinds =
        [("workload", Kind::Workload), ("managed", Kind::Managed), ("secret", Kind::Secret)];
    let kind = section
        .required("kind", "use one of workload, managed, secret")
        .and_then(|value| value.one_of(&kinds));
    let fits = |kinds: &[Kind]| kind.is_none_or(|kind| kinds.contains(&kind));
    let is_secret = kind == Some(Kind::Secret);
    let client_id = fits(&[Kind::Managed, Kind::Secret])
        .then(|| own(&mut section, "client_id", is_secret))
        .flatten()
        .and_then(|value| value.name().map(str::to_owned));
    let tenant = fits(&[Kind::Secret])
        .then(|| own(&mut section, "tenant", is_secret))
        .flatten()
        .and_then(|value| tenant(&value));
    let secret = fits(&[Kind::Secret])
        .then(|| own(&mut section, "secret", is_secret))
        .flatten()
        .and_then(|value| value.secret());
    let scope = section.text("scope");
    let authority = section
        .get("authority")
        .and_then(|value| value.endpoint(false, "use https://").map(str::to_owned));
    section.finish();
    let kind = match kind {
        Some(Kind::Secret) => EntraKind::ClientSecret {
            tenant: tenant.unwrap_or_default(),
            client_id: client_id.unwrap_or_default(),
            secret: secret.unwrap_or_else(|| Secret::new(String::new())),
        },
        Some(Kind::Managed) => EntraKind::Managed { client_id },
        Some(Kind::Workload) | None => EntraKind::Workload,
    };
    Entra { kind, scope: scope.unwrap_or_else(|| SCOPE.to_owned()), authority }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Workload,
    Managed,
    Secret,
}

/// A key that is required for a client secret and optional otherwise.
fn own<'a>(section: &mut Section<'a>, key: &'static str, is_needed: bool) -> Option<Value<'a>> {
    if is_needed { section.required(key, "kind = \"secret\" needs it") } else { section.get(key) }
}

fn tenant(value: &Value<'_>) -> Option<String> {
    let tenant = value.name()?;
    if !tenant.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.') {
        value.report(format!("{tenant:?} is not a tenant; use its id or its domain"));
    }
    Some(tenant.to_owned())
}

fn socket(value: &Value<'_>) -> Option<SocketAddr> {
    let text = value.text()?;
    let address = text.trim().parse();
    if address.is_err() {
        value.report(format!("{text:?} is not an address; write it like \"127.0.0.1:8080\""));
    }
    address.ok()
}

fn size(section: &mut Section<'_>, key: &'static str, least: u64, most: u64, default: u64) -> u64 {
    section.get(key).and_then(|value| value.size(least, most)).unwrap_or(default)
}

fn count(
    section: &mut Section<'_>,
    key: &'static str,
    least: u64,
    most: u64,
    default: u64,
) -> usize {
    in_memory(section.get(key).and_then(|value| value.whole(least..most + 1)).unwrap_or(default))
}

fn in_memory(size: u64) -> usize {
    usize::try_from(size).expect("ranges end below 2^32")
}

/// Shorter timeouts would refuse everything.
const MIN_TIMEOUT: Duration = Duration::from_millis(1);
const SCOPE: &str = "https://cognitiveservices.azure.com/.default";
