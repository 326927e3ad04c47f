//! Detects files in another format than TOML.

use std::path::Path;

/// The format of a file that is not TOML, and the remedy; `None` if it may be invalid TOML.
///
/// Only checks the beginning, and repeats none of it: it may contain a secret.
pub(super) fn of(path: &Path, text: &str) -> Option<&'static str> {
    let text = text.trim_start_matches('\u{feff}');
    let has_ending = |endings: &[&str]| {
        let ending = path.extension().and_then(|ending| ending.to_str());
        ending.is_some_and(|ending| endings.iter().any(|it| ending.eq_ignore_ascii_case(it)))
    };
    let first = text.lines().map(str::trim_end).find(|line| {
        let line = line.trim_start();
        !line.is_empty() && !line.starts_with('#')
    });
    let first = first.unwrap_or_default();
    if first.trim_start().starts_with('<') {
        return Some(
            "is XML; this file is TOML. `spillover init --from apim FILE` converts a policy of API \
             Management",
        );
    }
    if first.trim_start().starts_with('{') {
        return Some("is JSON; this file is TOML. `spillover init` writes an initial one");
    }
    if has_ending(&["yaml", "yml"]) || is_yaml(first) {
        return Some(
            "is YAML; this file is TOML. `spillover init --from litellm FILE` converts a \
             configuration of LiteLLM, `spillover init` writes an initial one",
        );
    }
    None
}

/// Whether a line could begin a YAML document, and no TOML document.
fn is_yaml(line: &str) -> bool {
    if line == "---" || line.starts_with("--- ") || line.starts_with("- ") || line.starts_with('%')
    {
        return true;
    }
    let Some((key, rest)) = line.split_once(':') else { return false };
    let key = key.trim_matches(['"', '\'']);
    let is_key = |byte: u8| byte.is_ascii_alphanumeric() || b"_-. ".contains(&byte);
    !key.is_empty() && key.bytes().all(is_key) && (rest.is_empty() || rest.starts_with([' ', '\t']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_format_is_recognised_and_toml_with_a_mistake_is_not_taken_for_one() {
        for (name, text, word) in [
            ("c.toml", "model_list:\n  - model_name: gpt-4o\n", Some("is YAML")),
            ("c.toml", "# a comment\n\n---\na: 1\n", Some("is YAML")),
            ("c.toml", "listen: { address: x }\n", Some("is YAML")),
            ("c.toml", "- a\n- b\n", Some("is YAML")),
            ("c.yaml", "anything", Some("is YAML")),
            ("c.toml", "\u{feff}<policies>\n", Some("is XML")),
            ("c.toml", "{ \"listen\": 1 }", Some("is JSON")),
            ("c.toml", "[listen]\naddress = 127.0.0.1:80\n", None),
            ("c.toml", "address = http://a:80\n", None),
            ("c.toml", "max_wait = 4s\n", None),
            ("c.toml", "", None),
        ] {
            let found = of(Path::new(name), text);
            assert_eq!(found.is_some(), word.is_some(), "{text}");
            assert!(word.is_none_or(|word| found.is_some_and(|it| it.starts_with(word))), "{text}");
        }
    }
}
