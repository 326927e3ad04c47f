//! Reads a model's policy: failures, stickiness, cache affinity, and the inspection of answers.

use std::time::Duration;

use http::StatusCode;
use toml::de::DeValue;
use tower_spillover::sticky::CacheAffinity;

use super::{
    Backend, Failure, Failures, Inspection, MoveBudget, Steering, Stickiness, StickySettings,
    client::Classes,
    first_token,
    toml::{Section, Value},
};

/// The ids remembered for all models together.
pub(super) fn memory(mut section: Section<'_>) -> StickySettings {
    let default = StickySettings::default();
    let capacity = section.get("capacity").and_then(|value| value.whole(1..MAX_IDS + 1));
    let capacity = capacity.and_then(|number| usize::try_from(number).ok());
    let age = section.get("longest_age").and_then(|value| value.duration(MINUTE, YEAR));
    let unknown = section.get("unknown");
    let words = [("serve", true), ("refuse", false)];
    let serves_unknown = unknown.and_then(|value| value.one_of(&words));
    section.finish();
    StickySettings {
        serves_unknown,
        capacity: capacity.unwrap_or(default.capacity),
        longest_age: age.unwrap_or(default.longest_age),
    }
}

/// Reads the part of a model's `section` that chooses between `ptu` and `standard`.
pub(super) fn read(
    section: &mut Section<'_>,
    ptu: &[Backend],
    standard: &[Backend],
    classes: &Classes,
) -> Steering {
    let (failures, shorthand) = (section.get("failures"), section.get("rotate_on_failure"));
    let long = section.get("spill_long_context");
    if let Some(long) = long.as_ref().filter(|_| ptu.is_empty() || standard.is_empty()) {
        long.report("has no effect without both tiers; remove it or add the other tier");
    }
    let attempts = section.get("max_attempts").and_then(|value| value.whole(1..MAX_ATTEMPTS + 1));
    let affinity = section.get("cache_affinity").and_then(|value| value.one_of(&AFFINITIES));
    let sticky = section.get("sticky").map(|value| {
        let names = ptu.iter().chain(standard).map(|backend| &*backend.name);
        stickiness(&value, &names.collect::<Vec<_>>())
    });
    let inspect = section.get("inspect");
    let inspected = inspect.as_ref().map_or_else(|| Some(Inspection::default()), inspection);
    let first_token = section
        .get("first_token")
        .and_then(|value| first_token::of_model(&value, ptu.len() + standard.len()));
    if let Some(inspect) = inspect {
        let own = first_token.map(|own| ("first_token".to_owned(), own.limit));
        let of_classes = classes
            .iter()
            .filter_map(|(name, class)| Some((format!("class {name:?}"), class.first_token??)));
        first_token::check(&inspect, inspected.as_ref(), own.into_iter().chain(of_classes));
    }
    Steering {
        failures: all_failures(failures, shorthand),
        spill_long_context: long.and_then(|value| value.flag()).unwrap_or(true),
        rotate_long_context: section.flag("rotate_long_context", false),
        flex_as_default: section.flag("flex_as_default", false),
        max_attempts: attempts.and_then(|number| u32::try_from(number).ok()),
        cache_affinity: affinity.flatten(),
        sticky: sticky.unwrap_or_default(),
        inspect: inspected,
        first_token,
    }
}

fn all_failures(failures: Option<Value<'_>>, shorthand: Option<Value<'_>>) -> Failures {
    if let Some(shorthand) = shorthand.as_ref().filter(|_| failures.is_some()) {
        shorthand.report("cannot be combined with `failures`; remove one of the two");
    }
    match (failures, shorthand.and_then(|value| value.flag())) {
        (Some(value), _) => listed_failures(&value),
        (None, Some(true)) => {
            let late = Failure::Status(StatusCode::GATEWAY_TIMEOUT);
            Failures { on: [&Failures::USUAL[..], &[late]].concat(), ..Failures::default() }
        }
        (None, Some(false)) => Failures { on: vec![Failure::Connect], ..Failures::default() },
        (None, None) => Failures::default(),
    }
}

fn listed_failures(value: &Value<'_>) -> Failures {
    let DeValue::Table(_) = value.value else {
        return Failures { on: kinds(value), ..Failures::default() };
    };
    let default = Failures::default();
    let Some(mut section) = value.section() else { return default };
    let on = section.get("on").map_or(default.on, |value| kinds(&value));
    let budget = match section.get("budget") {
        None => default.budget,
        Some(value) if matches!(value.value.as_str(), Some("none")) => None,
        Some(value) => {
            let default = MoveBudget::default();
            Some(value.section().map_or(default, |section| move_budget(section, default)))
        }
    };
    section.finish();
    Failures { on, budget }
}

fn kinds(list: &Value<'_>) -> Vec<Failure> {
    let words = list.list().unwrap_or_default();
    words.iter().filter_map(failure).collect()
}

fn failure(value: &Value<'_>) -> Option<Failure> {
    let word = value.text()?;
    let Ok(status) = word.parse::<u16>() else { return value.one_of(&ERRORS) };
    let wrong = match status {
        429 | 529 => "is a refusal, which always moves on; remove it",
        401 | 402 | 403 | 404 | 410 => {
            "moves on by itself where it is the backend's own fault, and is the client's otherwise; \
             remove it"
        }
        400 | 413 => {
            "is about the request; what is too long is for spill_long_context and \
             rotate_long_context"
        }
        400..600 => return StatusCode::from_u16(status).ok().map(Failure::Status),
        _ => "is not an error status; use 400 to 599",
    };
    value.report(format!("{word:?} {wrong}"));
    None
}

pub(super) fn move_budget(mut section: Section<'_>, default: MoveBudget) -> MoveBudget {
    let moves = section.get("moves").and_then(|value| value.whole(1..MAX_MOVES + 1));
    let share = section.get("per_success").and_then(|value| value.number(0.0, 1.0));
    section.finish();
    MoveBudget {
        moves: moves.and_then(|moves| u32::try_from(moves).ok()).unwrap_or(default.moves),
        per_success: share.unwrap_or(default.per_success),
    }
}

/// `names` are those of the model's backends.
fn stickiness(value: &Value<'_>, names: &[&str]) -> Stickiness {
    let DeValue::Table(_) = value.value else {
        return match value.flag() {
            Some(false) => Stickiness::Off,
            _ => Stickiness::default(),
        };
    };
    let Some(mut section) = value.section() else { return Stickiness::default() };
    let default_backend = section.get("default_backend").and_then(|value| {
        let name = value.text()?;
        if !names.contains(&name) {
            value.unknown(name, names);
        }
        Some(name.to_owned())
    });
    section.finish();
    Stickiness::On { default_backend }
}

fn inspection(value: &Value<'_>) -> Option<Inspection> {
    let DeValue::Table(_) = value.value else {
        return value.flag().unwrap_or(true).then(Inspection::default);
    };
    let mut section = value.section()?;
    let mut time =
        |key, most| section.get(key).and_then(|value| value.duration(Duration::ZERO, most));
    let (body_time, preamble_time) = (time("body_time", MINUTE), time("preamble_time", MINUTE / 2));
    let limit = section.get("preamble_limit").and_then(|value| value.size(0, 64 << 20));
    section.finish();
    let preamble_limit = limit.and_then(|limit| usize::try_from(limit).ok());
    Some(Inspection { body_time, preamble_time, preamble_limit })
}

const AFFINITIES: [(&str, Option<CacheAffinity>); 3] = [
    ("off", None),
    ("key", Some(CacheAffinity::Key)),
    ("key-or-prompt", Some(CacheAffinity::KeyOrPrompt)),
];
const ERRORS: [(&str, Failure); 3] =
    [("connect", Failure::Connect), ("reset", Failure::Reset), ("timeout", Failure::Timeout)];
const YEAR: Duration = Duration::from_secs(31_557_600);
const MINUTE: Duration = Duration::from_secs(60);
const MAX_ATTEMPTS: u64 = 1_000;
const MAX_MOVES: u64 = 1_000_000;
/// About 2 GiB.
const MAX_IDS: u64 = 10_000_000;
