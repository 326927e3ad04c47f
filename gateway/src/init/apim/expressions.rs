//! Makes policies with unescaped C# expressions readable for an XML parser.

/// Escapes the quotes, angle brackets and ampersands in expressions (`@(...)`, `@{...}`). API
/// Management accepts policies in which they are not escaped.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let mut rest = text;
    loop {
        let (comment, expression) = (rest.find("<!--"), begin(rest));
        match (comment, expression) {
            (Some(at), expression) if expression.is_none_or(|it| at < it) => {
                let end = rest[at..].find("-->").map_or(rest.len(), |length| at + length + 3);
                escaped.push_str(&rest[..end]);
                rest = &rest[end..];
            }
            (_, Some(at)) => {
                escaped.push_str(&rest[..at]);
                let end = at + length(&rest[at..]);
                for character in rest[at..end].chars() {
                    match character {
                        '<' => escaped.push_str("&lt;"),
                        '>' => escaped.push_str("&gt;"),
                        '"' => escaped.push_str("&quot;"),
                        '\'' => escaped.push_str("&apos;"),
                        other => escaped.push(other),
                    }
                }
                rest = &rest[end..];
            }
            _ => {
                escaped.push_str(rest);
                return ampersands(&escaped);
            }
        }
    }
}

/// The position of the next expression.
fn begin(text: &str) -> Option<usize> {
    [text.find("@("), text.find("@{")].into_iter().flatten().min()
}

/// The length of the expression at the beginning of `text`: up to its closing bracket, ignoring C#
/// strings and characters. If it is never closed, up to the end of the line.
fn length(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut quote = None;
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match (quote, byte) {
            _ if is_escaped => is_escaped = false,
            (Some(_), b'\\') => is_escaped = true,
            (Some(open), byte) if open == byte => quote = None,
            (Some(_), _) => {}
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, b'(' | b'{' | b'[') => depth += 1,
            (None, b')' | b'}' | b']') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            (None, _) => {}
        }
    }
    // In well-formed policies, quotes are already escaped; treat this one in the same way.
    text.find(['"', '\n', '<']).unwrap_or(text.len())
}

/// Escapes ampersands that do not begin an entity.
fn ampersands(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        escaped.push_str(&rest[..=at]);
        rest = &rest[at + 1..];
        let name = rest.find(';').map(|end| &rest[..end]);
        let is_entity = name.is_some_and(|name| {
            ["lt", "gt", "amp", "quot", "apos"].contains(&name)
                || name.strip_prefix('#').is_some_and(|it| !it.is_empty() && it.len() < 8)
        });
        if !is_entity {
            escaped.push_str("amp;");
        }
    }
    escaped + rest
}

/// The name in `{{name}}`.
pub(super) fn named_value(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("{{")?;
    let (name, _) = rest.split_once("}}")?;
    Some(name.trim()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn expressions_become_what_xml_takes() {
        for (text, expected) in [
            (
                "<a b=\"@(x.GetValueOrDefault<int>(\"n\") == 1 && y)\" />",
                "<a b=\"@(x.GetValueOrDefault&lt;int&gt;(&quot;n&quot;) == 1 &amp;&amp; y)\" />",
            ),
            ("<a>@{ return \"})\"; }</a>", "<a>@{ return &quot;})&quot;; }</a>"),
            ("<a b=\"@(x &lt; 3 &amp;&amp; y)\"/>", "<a b=\"@(x &lt; 3 &amp;&amp; y)\"/>"),
            ("<!-- @( --><a b=\"c&d\"/>", "<!-- @( --><a b=\"c&amp;d\"/>"),
            ("<a/>", "<a/>"),
        ] {
            assert_eq!(escaped(text), expected);
        }
        assert_eq!(named_value("{{ aoai-eastus }}/openai"), Some("aoai-eastus"));
        assert_eq!(named_value("{{}}"), None);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,40}|(@\\(|@\\{|\\)|\\}|\"|'|\\\\|<!--|-->|&|;|<|>|\n|é){0,30}") {
            let _ = escaped(&text);
        }
    }
}
