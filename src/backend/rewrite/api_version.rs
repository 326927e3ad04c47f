//! Puts one `api-version` into a query.

/// Whether `query` already says `version`, once and in the plain spelling.
pub(super) fn is_said(query: &str, version: &str) -> bool {
    let mut pairs = query.split('&').filter(|pair| is_api_version(pair));
    let plain = pairs
        .next()
        .and_then(|pair| pair.strip_prefix(NAME))
        .and_then(|rest| rest.strip_prefix('='));
    plain == Some(version) && pairs.next().is_none()
}

/// Emits `?` and the query with `version` in the place of its first `api-version`, or at its end.
/// Further ones are dropped; other pairs stay byte for byte.
pub(super) fn write(query: &str, version: &str, emit: &mut impl FnMut(&str)) {
    let mut separator = "?";
    let mut said = false;
    for pair in query.split('&').filter(|_| !query.is_empty()) {
        if !is_api_version(pair) {
            emit(separator);
            emit(pair);
        } else if said {
            continue;
        } else {
            write_pair(separator, version, emit);
            said = true;
        }
        separator = "&";
    }
    if !said {
        write_pair(separator, version, emit);
    }
}

fn write_pair(separator: &str, version: &str, emit: &mut impl FnMut(&str)) {
    emit(separator);
    emit(NAME);
    emit("=");
    emit(version);
}

/// Whether the service would read this pair as its `api-version`. Generous, since two versions in
/// one query are worse than a lost misspelling: ASP.NET query names ignore case, and `%2D` is `-`.
fn is_api_version(pair: &str) -> bool {
    let name = pair.split_once('=').map_or(pair, |(name, _)| name).as_bytes();
    if name.len() == NAME.len() {
        return name.eq_ignore_ascii_case(NAME.as_bytes());
    }
    name.contains(&b'%') && decoded_is_name(name)
}

fn decoded_is_name(name: &[u8]) -> bool {
    let mut rest = name;
    for expected in NAME.bytes() {
        let (byte, next) = match rest {
            [b'%', high, low, next @ ..] => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, next),
                _ => return false,
            },
            [byte, next @ ..] => (*byte, next),
            [] => return false,
        };
        if !byte.eq_ignore_ascii_case(&expected) {
            return false;
        }
        rest = next;
    }
    rest.is_empty()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

const NAME: &str = "api-version";

#[cfg(test)]
mod tests {
    use super::*;

    fn written(query: &str) -> String {
        let mut text = String::new();
        write(query, "2025-01-01", &mut |piece| text.push_str(piece));
        text
    }

    #[test]
    fn the_first_version_is_replaced_in_its_place_and_later_ones_go() {
        for (query, expected) in [
            ("", "?api-version=2025-01-01"),
            ("a=1", "?a=1&api-version=2025-01-01"),
            ("api-version=2023-05-15", "?api-version=2025-01-01"),
            ("api-version=2023-05-15&a=1", "?api-version=2025-01-01&a=1"),
            ("a=1&api-version=x&b=%20&b=2", "?a=1&api-version=2025-01-01&b=%20&b=2"),
            ("api-version=x&a=1&api-version=y&b", "?api-version=2025-01-01&a=1&b"),
            ("api-version", "?api-version=2025-01-01"),
            ("api-version=", "?api-version=2025-01-01"),
            ("API-Version=x&api%2Dversion=y&%61pi%2dversion=z", "?api-version=2025-01-01"),
            (
                "x-api-version=1&api-version-x=2",
                "?x-api-version=1&api-version-x=2&api-version=2025-01-01",
            ),
            ("api%2-version=1", "?api%2-version=1&api-version=2025-01-01"),
            ("api%2Dversio%=1", "?api%2Dversio%=1&api-version=2025-01-01"),
            ("a=api-version=1", "?a=api-version=1&api-version=2025-01-01"),
        ] {
            assert_eq!(written(query), expected, "{query}");
        }
    }

    #[test]
    fn only_one_plain_pair_says_the_version() {
        assert!(is_said("api-version=2025-01-01", "2025-01-01"));
        assert!(is_said("a=1&api-version=2025-01-01&b", "2025-01-01"));
        for query in [
            "",
            "a=2025-01-01",
            "api-version",
            "api-version=2024-10-21",
            "api-version=2025-01-01&api-version=2025-01-01",
            "API-version=2025-01-01",
            "api%2Dversion=2025-01-01",
        ] {
            assert!(!is_said(query, "2025-01-01"), "{query}");
        }
    }
}
