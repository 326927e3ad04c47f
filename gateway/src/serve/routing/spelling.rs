//! Normalises spellings of a path that every server interprets in the same way.

use http::{Uri, uri::PathAndQuery};

/// The target without empty segments, `.` segments and a trailing slash, which result from joining
/// base URLs and paths. `None` if it has none of them.
///
/// Leaves spellings that servers interpret differently for [`Route::of`](super::route::Route::of)
/// to refuse: `..`, all escapes, and a deployment without a name, whose operation would be taken
/// for the name.
pub(crate) fn plain(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    let is_plain = !path.contains("//") && !path.contains("/.") && !path.ends_with('/');
    if is_plain {
        return None;
    }
    let mut text = String::with_capacity(path.len());
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_nameless = text == "/openai/deployments";
        if is_nameless && segment.is_empty() && segments.peek().is_some() {
            return None;
        }
        if !is_nameless && matches!(segment, "" | ".") {
            continue;
        }
        text.push('/');
        text.push_str(segment);
    }
    if text.is_empty() {
        text.push('/');
    }
    if let Some(query) = uri.query() {
        text.push('?');
        text.push_str(query);
    }
    let target = PathAndQuery::try_from(text).ok()?;
    Some(Uri::from(target))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(target: &str) -> String {
        let uri: Uri = target.parse().expect("a target");
        plain(&uri).map_or_else(|| target.to_owned(), |uri| uri.to_string())
    }

    #[test]
    fn what_says_nothing_is_left_out() {
        for (given, expected) in [
            ("//openai/v1/responses", "/openai/v1/responses"),
            ("/openai//v1/./responses/", "/openai/v1/responses"),
            ("/openai/v1/responses//?a=//b/./", "/openai/v1/responses?a=//b/./"),
            ("/./openai/deployments/a//embeddings/.", "/openai/deployments/a/embeddings"),
            ("http://host//openai/v1/models/", "/openai/v1/models"),
            ("/", "/"),
            ("//", "/"),
        ] {
            assert_eq!(read(given), expected, "{given}");
        }
    }

    #[test]
    fn what_is_read_in_more_than_one_way_is_left_alone() {
        for given in [
            "/openai/v1/responses",
            "/openai/deployments//chat/completions",
            "/openai/deployments/./chat/completions",
            "/openai/deployments/a/../b/embeddings",
            "/openai/v1/%2e/responses",
            "/.well-known/x",
        ] {
            assert_eq!(read(given), given);
        }
    }
}
