//! Reads the time limit on an answer's first token, for a model and for a class.

use std::time::Duration;

use tower_spillover::first_token::Limit;

use super::{
    FirstToken, Inspection, MoveBudget,
    model_policy::move_budget,
    toml::{Section, Value},
};

/// For a class: its own limit, or `"off"`.
pub(super) fn of_class(value: &Value<'_>) -> Option<Option<Limit>> {
    if let Some("off") = value.value.as_str() {
        return Some(None);
    }
    let mut section = value.section()?;
    let limit = limit(&mut section);
    section.finish();
    limit.map(Some)
}

/// For a model with this many `backends`.
pub(super) fn of_model(value: &Value<'_>, backends: usize) -> Option<FirstToken> {
    let mut section = value.section()?;
    if backends < 2 {
        value.report("has no effect without a second backend; remove it or add one");
    }
    let limit = limit(&mut section);
    let budget = section.get("budget").and_then(|value| {
        Some(move_budget(value.section()?, MoveBudget { moves: 10, per_success: 0.1 }))
    });
    section.finish();
    limit.map(|limit| FirstToken { limit, budget })
}

/// Reports a model's `inspect` if it makes one of the `limits` ineffective; each limit has its
/// owner.
pub(super) fn check(
    inspect: &Value<'_>,
    settings: Option<&Inspection>,
    limits: impl Iterator<Item = (String, Limit)>,
) {
    let Some((whose, limit)) = limits.max_by_key(|(_, limit)| limit.after()) else { return };
    match settings {
        None => inspect.report(format!(
            "leaves the first token of a stream unknown, for which {whose} has a limit; remove one \
             of the two"
        )),
        Some(&Inspection { preamble_time: Some(held), .. }) if limit.after() >= held => {
            let [after, held] = [limit.after(), held].map(humantime::format_duration);
            inspect.report(format!(
                "holds a silent stream back for {held}, but {whose} gives it {after} until its \
                 first token; use a longer preamble_time"
            ));
        }
        Some(_) => {}
    }
}

fn limit(section: &mut Section<'_>) -> Option<Limit> {
    let after = section
        .required("after", "write how long a first token may take, like after = \"8s\"")
        .and_then(|value| value.duration(MIN_FIRST_TOKEN_TIME, MAX_FIRST_TOKEN_TIME));
    let hedges = section.get("mode").and_then(|value| value.one_of(&MODES)).unwrap_or(false);
    let limit = if hedges { Limit::hedge_after } else { Limit::move_on_after };
    after.map(limit)
}

/// Whether both attempts run.
const MODES: [(&str, bool); 2] = [("move-on", false), ("hedge", true)];
/// No model is faster over a network.
const MIN_FIRST_TOKEN_TIME: Duration = Duration::from_millis(50);
/// Less than `inspect.preamble_time`, which is at most 30 s: after that, a silent stream has been
/// passed to the caller.
const MAX_FIRST_TOKEN_TIME: Duration = Duration::from_secs(29);
