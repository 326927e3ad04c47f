//! Keys that anybody could guess: they are refused, wherever they come from.

use sha2::{Digest, Sha256};

/// What is wrong with a key, and the remedy; `None` for one that may do.
pub(super) fn weakness(key: &str) -> Option<String> {
    let letters: String = key.chars().filter(char::is_ascii_alphanumeric).collect();
    let letters = letters.to_ascii_lowercase();
    let mut bytes = key.as_bytes().to_vec();
    bytes.sort_unstable();
    bytes.dedup();
    let is = if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        "has white space or other signs in it that headers change".to_owned()
    } else if key.len() < LEAST {
        format!("is shorter than {LEAST} characters")
    } else if bytes.len() < LEAST_DIFFERENT {
        format!("has fewer than {LEAST_DIFFERENT} different characters")
    } else if PLACEHOLDERS.iter().any(|text| letters.contains(text))
        || key.starts_with('<')
        || key.contains("${")
        || key.contains("{{")
    {
        "is a placeholder".to_owned()
    } else {
        return None;
    };
    Some(format!("{is}; use a random one: openssl rand -hex 24"))
}

/// Whether a hash is that of nothing, of white space or of a placeholder, as a command gives it that was
/// not given the key.
pub(super) fn is_of_no_key(hash: &[u8; 32]) -> bool {
    let words = ["", " ", "KEY", "key", "<key>", "$KEY", "secret", "password", "change-me"];
    let mut all = words.iter().chain(&PLACEHOLDERS);
    all.any(|word| [*word, &format!("{word}\n")].iter().any(|text| *hash == digest(text)))
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// So many random letters and digits take longer to guess than a gateway lives.
const LEAST: usize = 12;
const LEAST_DIFFERENT: usize = 6;
/// Letters and digits of words that stand where a key belongs.
const PLACEHOLDERS: [&str; 10] = [
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
        assert!(!is_of_no_key(&digest("a-key-of-team-a-0001")));
    }
}
