//! Which of a deployment's two limits a refusal is about, according to its head.

use http::{HeaderMap, HeaderName};

use super::{
    members,
    names::{self, Dimension, REQUESTS, TOKENS},
    number,
};

/// The limit for which a backend refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Limit {
    /// The token limit, which a lighter request may not exceed.
    Tokens,
    /// The call limit, to which every request counts equally.
    Calls,
}

/// What remains of a dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stock {
    Left,
    Spent,
    Unknown,
}

impl Limit {
    /// Whether `headers` may say anything about limits.
    pub(crate) fn is_in(headers: &HeaderMap) -> bool {
        let starts = ["x-ratelimit-", "x-rate-limit-", "policy-id"];
        headers.keys().any(|name| starts.iter().any(|start| name.as_str().starts_with(start)))
    }

    /// The limit that the service names as the reason, in `x-ratelimit-type` or `policy-id`.
    pub(crate) fn named(headers: &HeaderMap) -> Option<Self> {
        let by_type = both_spellings(headers, &names::RATELIMIT_TYPE).find_map(Self::called);
        by_type.or_else(|| members::of(headers, &names::POLICY_ID).find_map(Self::of_policy))
    }

    /// The exhausted limit, according to `headers`. That of calls if both are exhausted, since a
    /// lighter request would be refused as well.
    pub(crate) fn spent(headers: &HeaderMap) -> Option<Self> {
        match (stock(headers, &TOKENS), stock(headers, &REQUESTS)) {
            (_, Stock::Spent) => Some(Self::Calls),
            (Stock::Spent, _) => Some(Self::Tokens),
            _ => None,
        }
    }

    fn called(word: &[u8]) -> Option<Self> {
        let word = word.trim_ascii();
        let is = |names: [&str; 2]| names.iter().any(|it| word.eq_ignore_ascii_case(it.as_bytes()));
        if is(["token", "tokens"]) {
            Some(Self::Tokens)
        } else if is(["request", "requests"]) {
            Some(Self::Calls)
        } else {
            None
        }
    }

    /// `DeploymentRatelimit-Token` is about tokens.
    fn of_policy(id: &[u8]) -> Option<Self> {
        let dash = id.iter().rposition(|byte| *byte == b'-')?;
        Self::called(&id[dash + 1..])
    }
}

/// The `remaining` header of a refusal. On a success it can be negative, too.
pub(super) fn stock(headers: &HeaderMap, dimension: &'static Dimension) -> Stock {
    match least(headers, &dimension.remaining) {
        None => Stock::Unknown,
        Some(remaining) if remaining > 0.0 => Stock::Left,
        // The Responses API sends -1 of -1 for "not counted" (openai-dotnet issue 838).
        Some(-1.0) if least(headers, &dimension.limit).is_none_or(|limit| limit == -1.0) => {
            Stock::Unknown
        }
        Some(_) => Stock::Spent,
    }
}

fn least(headers: &HeaderMap, names: &'static [HeaderName; 2]) -> Option<f64> {
    both_spellings(headers, names).filter_map(number::parse).reduce(f64::min)
}

pub(super) fn both_spellings<'a>(
    headers: &'a HeaderMap,
    names: &'static [HeaderName; 2],
) -> impl Iterator<Item = &'a [u8]> {
    names.iter().flat_map(|name| members::of(headers, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::heads::head;

    #[test]
    fn the_limit_is_the_one_that_is_named_or_spent() {
        let type_is = |name| ("x-ratelimit-type", name);
        for (line, limit) in [
            (type_is("Tokens"), Some(Limit::Tokens)),
            (type_is("requests"), Some(Limit::Calls)),
            (type_is("Vibes"), None),
            (("policy-id", "DeploymentRatelimit-Token"), Some(Limit::Tokens)),
            (("policy-id", "DeploymentRatelimit-Request"), Some(Limit::Calls)),
            (("policy-id", "Token"), None),
        ] {
            assert_eq!(Limit::named(&head(&[line])), limit, "{line:?}");
        }
        let tokens = |left| ("x-ratelimit-remaining-tokens", left);
        let calls = |left| ("x-ratelimit-remaining-requests", left);
        for (lines, limit) in [
            (vec![tokens("0")], Some(Limit::Tokens)),
            (vec![tokens("-27689"), calls("9")], Some(Limit::Tokens)),
            (vec![calls("0")], Some(Limit::Calls)),
            (vec![calls("0"), tokens("9")], Some(Limit::Calls)),
            (vec![calls("0"), tokens("0")], Some(Limit::Calls)),
            (vec![calls("9"), tokens("9")], None),
            (vec![tokens("-1")], None),
            (vec![], None),
        ] {
            assert_eq!(Limit::spent(&head(&lines)), limit, "{lines:?}");
        }
    }
}
