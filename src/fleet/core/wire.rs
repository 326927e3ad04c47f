//! Steps and replies as plain values, for stores that run the core as a script.

use super::steps::{Answer, Attempt, Grant, Newcomer, Refusal, Reply, SpillKind, Step, Ticket};

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
const UNKNOWN: i64 = -1_000_000_000_000_000;

/// The script, with the positions of fields in place of their names.
pub(crate) fn script() -> String {
    let source = include_str!("../redis/gate.lua");
    let (_, fields) = source.split_once("-- fields:\n").expect("it lists its fields");
    let (fields, _) = fields.split_once("-- end\n").expect("the list ends");
    let fields: Vec<&str> = fields.split_whitespace().filter(|word| *word != "--").collect();
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let mut script = String::with_capacity(source.len());
    for (index, part) in source.split("s.").enumerate() {
        if index == 0 {
            script += part;
            continue;
        }
        let is_field = !script.bytes().last().is_some_and(is_name);
        let end = part.bytes().position(|byte| !is_name(byte)).unwrap_or(part.len());
        let position = fields.iter().position(|field| *field == &part[..end]);
        match position.filter(|_| is_field) {
            Some(position) => script += &format!("s[{}]{}", position + 1, &part[end..]),
            None => script.extend(["s.", part]),
        }
    }
    script
}
