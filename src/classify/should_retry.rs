//! `x-should-retry`: whether a service asks for or forbids a retry.

use http::HeaderMap;

use super::names;

/// Whether `headers` ask for or forbid a retry, if they say.
pub(crate) fn should_retry(headers: &HeaderMap) -> Option<bool> {
    match headers.get(&names::X_SHOULD_RETRY)?.as_bytes().trim_ascii() {
        b"true" | b"True" => Some(true),
        b"false" | b"False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::heads::head;

    #[test]
    fn only_true_and_false_say_something() {
        for (value, said) in [
            ("true", Some(true)),
            ("False", Some(false)),
            (" false ", Some(false)),
            ("", None),
            ("0", None),
            ("falsehood", None),
        ] {
            assert_eq!(should_retry(&head(&[("x-should-retry", value)])), said, "{value:?}");
        }
        assert_eq!(should_retry(&HeaderMap::new()), None);
    }
}
