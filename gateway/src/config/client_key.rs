//! Rejects guessable keys, wherever they come from.

use std::{collections::HashSet, sync::LazyLock};

use sha2::{Digest, Sha256};

/// What is wrong with a key, and the remedy; `None` if it is acceptable.
pub(super) fn weakness(key: &str) -> Option<String> {
    let letters: String = key.chars().filter(char::is_ascii_alphanumeric).collect();
    let letters = letters.to_ascii_lowercase();
    let mut bytes = key.as_bytes().to_vec();
    bytes.sort_unstable();
    bytes.dedup();
    let is = if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        "has white space or other characters that headers change".to_owned()
    } else if key.len() < MIN_KEY_CHARACTERS {
        format!("is shorter than {MIN_KEY_CHARACTERS} characters")
    } else if bytes.len() < MIN_DIFFERENT_CHARACTERS {
        format!("has fewer than {MIN_DIFFERENT_CHARACTERS} different characters")
    } else if PLACEHOLDERS.iter().any(|text| letters.contains(text))
        || key.starts_with('<')
        || key.contains("${")
        || key.contains("{{")
    {
        "is a placeholder".to_owned()
    } else if is_sequence(&letters) {
        "is a sequence".to_owned()
    } else if is_of_words(&letters) {
        "is made of words that stand for a key".to_owned()
    } else {
        return None;
    };
    Some(format!("{is}; use a random one: openssl rand -hex 24"))
}

/// Whether most letters or digits follow their predecessor, up or down, as in `123456789012`.
fn is_sequence(letters: &str) -> bool {
    let steps = letters.as_bytes().windows(2).map(|pair| (pair[0], pair[1]));
    let follows =
        steps.filter(|&(one, next)| one.abs_diff(next) <= 1 || (one, next) == (b'9', b'0'));
    4 * follows.count() >= 3 * letters.len()
}

/// Whether nothing but digits and placeholder words is left, as in `my-api-key-1`.
fn is_of_words(letters: &str) -> bool {
    let letters: String = letters.chars().filter(char::is_ascii_alphabetic).collect();
    let mut rest = &*letters;
    while let Some(after) = WORDS.iter().find_map(|word| rest.strip_prefix(word)) {
        rest = after;
    }
    rest.is_empty() && !letters.is_empty()
}

/// Whether a hash is that of an empty text, white space or a placeholder, which a command prints
/// that was not given the key; or is all zeros.
pub(super) fn is_of_no_key(hash: &[u8; 32]) -> bool {
    static HASHES: LazyLock<HashSet<[u8; 32]>> = LazyLock::new(|| {
        let words = HASHED.iter().chain(&PLACEHOLDERS).chain(&WORDS);
        let words = words.flat_map(|word| [(*word).to_owned(), word.to_ascii_uppercase()]);
        let hashes =
            words.flat_map(|word| ["", "\n", "\r\n"].map(|end| digest(&format!("{word}{end}"))));
        hashes.chain([[0; 32]]).collect()
    });
    HASHES.contains(hash)
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// This many random letters and digits take longer to guess than a gateway lives.
const MIN_KEY_CHARACTERS: usize = 12;
const MIN_DIFFERENT_CHARACTERS: usize = 6;
/// Texts from example commands and from lists of common passwords. A hash reveals nothing about its
/// key, so only complete texts can be detected.
const HASHED: [&str; 29] = [
    "",
    " ",
    "$key",
    "$api_key",
    "${key}",
    "<key>",
    "<your-api-key>",
    "your_api_key",
    "your-api-key",
    "your_api_key_here",
    "your-api-key-here",
    "your_key",
    "your-key",
    "my-key",
    "my-api-key",
    "my-secret-key",
    "api_key",
    "api-key",
    "change-me",
    "change_me",
    "null",
    "none",
    "undefined",
    "password1",
    "password123",
    "123456",
    "12345678",
    "123456789",
    "letmein",
];
/// Words that keys in examples consist of, with digits and punctuation between them.
const WORDS: [&str; 17] = [
    "admin", "api", "client", "default", "demo", "dummy", "example", "foo", "key", "my", "openai",
    "root", "sample", "secret", "test", "token", "user",
];
/// Letters and digits of words that stand in for a key.
const PLACEHOLDERS: [&str; 11] = [
    "qwerty",
    "changeme",
    "changeit",
    "changethis",
    "placeholder",
    "yourapikey",
    "yourkey",
    "yoursecret",
    "replaceme",
    "replacewith",
    "password",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_anybody_could_guess_is_weak() {
        for key in [
            "",
            "k",
            "key-b",
            "elevenchars",
            "aaaaaaaaaaaaaaaa",
            "abababababababab",
            "a key with spaces",
            "a-key-with\ttabs",
            "k\u{fc}hle-schl\u{fc}ssel",
            "change-me-please",
            "<your-key-here>",
            "YOUR_API_KEY_HERE",
            "${SPILLOVER_KEY}",
            "{{ spillover.key }}",
            "placeholder-0123",
            "123456789012",
            "abcdefghijkl",
            "0123456789abcdef",
            "zyxwvutsrqpo",
            "secret-key-1",
            "my-api-key-1",
            "test_api_token_42",
        ] {
            assert!(weakness(key).is_some(), "{key}");
        }
        for key in ["a-key-of-team-a-0001", "0f1e2d3c4b5a", "q5T+/x9=Kz0a"] {
            assert_eq!(weakness(key), None, "{key}");
        }
    }

    #[test]
    fn the_hash_of_nothing_is_known() {
        for (text, expected) in [("", true), ("\n", true), ("changeme\n", true), ("KEY", true)] {
            assert_eq!(is_of_no_key(&digest(text)), expected, "{text}");
        }
        for text in ["test", "admin\n", "null", "password123", "YOUR_API_KEY", "NULL\r\n", "$KEY"] {
            assert!(is_of_no_key(&digest(text)), "{text}");
        }
        assert!(is_of_no_key(&[0; 32]));
        assert!(!is_of_no_key(&digest("a-key-of-team-a-0001")));
    }
}
