//! Steps and replies as plain values, for stores that run the core as a script.

use super::{
    constants::{CONSTANTS, NEVER},
    steps::{Answer, Attempt, Grant, Newcomer, Refusal, Reply, SpillKind, Step, Ticket},
};
use crate::hash::fnv1a;

impl Step {
    /// Appends the step to the arguments of `gate.lua`: a letter and numbers.
    pub(crate) fn write_to(&self, arguments: &mut Vec<String>) {
        let mut put = |letter: &str, numbers: &[f64]| {
            arguments.push(letter.to_owned());
            arguments.extend(numbers.iter().map(f64::to_string));
        };
        let is = |is: bool| f64::from(u8::from(is));
        match *self {
            Self::Enter { newcomer: Newcomer { rank, cost, is_patient }, left, lead } => {
                put("E", &[rank.into(), cost, is(is_patient), left, lead]);
            }
            Self::Turn { ticket: Ticket { rank, order, cost, is_patient }, left, lead } => {
                put("T", &[rank.into(), order, cost, is(is_patient), left, lead]);
            }
            Self::Refused { refusal, left, lead } => {
                let Refusal { ticket, attempt, ago, hint, share } = refusal;
                let Ticket { rank, order, cost, is_patient } = ticket;
                let Attempt { at, admitted_before, sent_after } = attempt;
                let (hint, share) = (hint.unwrap_or(-1.0), share.unwrap_or(-1.0));
                put(
                    "R",
                    &[
                        rank.into(),
                        order,
                        cost,
                        is(is_patient),
                        at,
                        admitted_before,
                        sent_after,
                        ago,
                        hint,
                        share,
                        left,
                        lead,
                    ],
                );
            }
            Self::Accepted { attempt: Attempt { at, admitted_before, .. }, since, share } => {
                put("A", &[at, admitted_before, since, share.unwrap_or(-1.0)]);
            }
            Self::Finished { cost, after, actual } => {
                put("F", &[cost, after, actual.unwrap_or(-1.0)]);
            }
            Self::Gone { at, cost } => put("G", &[at, cost]),
            Self::Leave { ticket: Ticket { rank, order, cost, .. } } => {
                put("L", &[rank.into(), order, cost]);
            }
        }
    }
}

impl Reply {
    /// The reply of `gate.lua`, or `None` if the numbers make no sense.
    pub(crate) fn read(numbers: &[i64]) -> Option<Self> {
        let (answers, rest) = numbers.as_chunks::<6>();
        let answers = answers.iter().map(answer).collect::<Option<Vec<_>>>()?;
        let &[closed, rate, waiting, busy] = rest else { return None };
        Some(Self {
            answers,
            closed: (closed > UNKNOWN).then_some(closed as f64),
            rate: rate.max(0) as f64 / 1e3,
            waiting: usize::try_from(waiting).ok(),
            busy: (busy >= 0).then_some(busy as f64),
        })
    }
}

fn answer(numbers: &[i64; 6]) -> Option<Answer> {
    let [_, a, b, c, d, e] = numbers.map(|number| number as f64);
    Some(match numbers[0] {
        1 => {
            let attempt = Attempt { at: c, admitted_before: d, sent_after: e };
            Answer::Go {
                after: a,
                grant: Grant { order: b, attempt: (c >= 0.0).then_some(attempt) },
            }
        }
        2 => Answer::Wait { after: a, order: b, predicted: c },
        3 => Answer::Spill {
            wait: a,
            allowed: b,
            cause: match numbers[3] {
                0 => SpillKind::Late,
                1 => SpillKind::Queue,
                2 => SpillKind::StandingQueue,
                _ => return None,
            },
        },
        _ => return None,
    })
}

/// How long the PTU stays closed when its level is unknown, in the script's words.
const UNKNOWN: i64 = NEVER as i64;

/// The script, with the positions of fields and the values of constants in place of their names.
pub(crate) fn script() -> String {
    let fields: Vec<&str> = fields().collect();
    let is_name = |byte: char| byte.is_ascii_alphanumeric() || byte == '_';
    let mut script = String::with_capacity(SOURCE.len());
    let mut rest = SOURCE;
    while let Some(start) = rest.find(is_name) {
        script += &rest[..start];
        let word = rest[start..].split(|char| !is_name(char)).next().unwrap_or_default();
        rest = &rest[start + word.len()..];
        let field = rest.strip_prefix('.').filter(|_| word == "s");
        let field = field.and_then(|rest| rest.split(|char| !is_name(char)).next());
        if let Some(name) = field
            && let Some(position) = fields.iter().position(|field| *field == name)
        {
            script += &format!("s[{}]", position + 1);
            rest = &rest[1 + name.len()..];
        } else if let Some((_, value)) = CONSTANTS.iter().find(|(name, _)| *name == word) {
            script += &if *value < 0.0 { format!("({value})") } else { value.to_string() };
        } else {
            script += word;
        }
    }
    script + rest
}

/// A number for the layout of what the script stores. Versions whose layouts differ do not read each
/// other's state.
pub(crate) fn layout() -> u16 {
    let words = fields().flat_map(|field| [field.as_bytes(), b" "]);
    let hash = fnv1a(words);
    (hash ^ (hash >> 16) ^ (hash >> 32) ^ (hash >> 48)) as u16
}

fn fields() -> impl Iterator<Item = &'static str> {
    let (_, fields) = SOURCE.split_once("-- fields:\n").expect("it lists its fields");
    let (fields, _) = fields.split_once("-- end\n").expect("the list ends");
    fields.split_whitespace().filter(|word| *word != "--")
}

const SOURCE: &str =
    concat!(include_str!("../redis/gate.lua"), include_str!("../redis/gate_steps.lua"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_has_the_core_s_constants_and_no_others() {
        for (name, _) in CONSTANTS {
            let is_used = SOURCE.split(|char: char| !(char.is_alphanumeric() || char == '_'));
            assert!(is_used.into_iter().any(|word| word == *name), "gate.lua has no {name}");
        }
        // Halves, doubles, and what is neither late nor early are no constants.
        let code = SOURCE.lines().map(|line| line.split("--").next().unwrap_or_default());
        for line in code {
            let words = line.split(|char: char| !(char.is_alphanumeric() || "._".contains(char)));
            for word in words.filter(|word| word.starts_with(|char: char| char.is_ascii_digit())) {
                let is_known = ["0", "1", "2", "4", "0.5", "56"].contains(&word);
                let is_format = ["016d", "1000", "1000000", "86400000", "3600000"].contains(&word);
                assert!(is_known || is_format || word.len() == 1, "{word} has no name: {line}");
            }
        }
    }
}
