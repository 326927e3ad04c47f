//! Isolates clients: objects that one of them stores at a resource are invisible to the others.

use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use memchr::memmem;
use tower_spillover::{
    Sticky, TryCloneBody,
    azure::{Operation, percent},
    sticky::{Home, Ownership, Recall},
};

use super::strict_form::{self, Field};
use crate::serve::{refusal::Refusal, upstream::request_body::RequestBody};

/// The objects of one client.
#[derive(Clone, Copy)]
pub(crate) struct Own<'a> {
    pub(crate) sticky: &'a Sticky,
    pub(crate) home: &'a Home,
    /// Whether objects without a known owner are visible to all clients.
    pub(crate) serves_unknown: bool,
}

impl Own<'_> {
    /// Asks the fleet whose objects the request refers to, as far as that is not known here.
    ///
    /// # Errors
    ///
    /// If it refers to so many that the fleet cannot be asked for all of them.
    pub(crate) async fn recall(self, request: &mut Request<RequestBody>) -> Result<(), Refusal> {
        let mut recall = self.sticky.recall(self.home).request(request);
        if is_list(request.method(), request.uri()) {
            recall = cursors(request.uri()).fold(recall, |recall, id| recall.id(&id));
        }
        if is_form(request) && !is_upload(request) {
            let body = request.body().content().unwrap_or_default();
            // A form that cannot be read is refused by the check.
            let fields = form(request, &body).unwrap_or_default();
            recall = fields.iter().filter_map(Field::id).fold(recall, Recall::id);
        }
        if recall.is_too_long() {
            let text =
                "The request refers to more than 512 objects that this replica does not know.";
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "BadRequest", text));
        }
        recall.await;
        Ok(())
    }

    /// The same for objects in a list.
    pub(crate) async fn recall_ids(self, ids: impl Iterator<Item = &str>) {
        let recall = self.sticky.recall(self.home);
        ids.fold(recall, Recall::id).await;
    }

    /// Refuses a request that refers to objects of another client. With `must_own`, also to objects
    /// without a known owner.
    ///
    /// # Errors
    ///
    /// The same error for another client's object and for one that does not exist. Also if a body
    /// could refer to an object in a way that is not detected.
    pub(crate) fn check(
        self,
        request: &Request<RequestBody>,
        must_own: bool,
    ) -> Result<(), Refusal> {
        let serves_unknown = self.serves_unknown && !must_own;
        let own = Self { serves_unknown, ..self };
        if is_form(request) {
            own.check_form(request)?;
        } else if request.body().content().is_some_and(|body| has_needless_escape(&body)) {
            let text = "The body escapes letters. Write them literally.";
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "BadRequest", text));
        }
        if is_list(request.method(), request.uri()) {
            own.check_cursors(request.uri())?;
        }
        own.admit(self.sticky.ownership(request, self.home))
    }

    /// Whether a list shows this object to the client.
    pub(crate) fn shows(self, id: &str) -> bool {
        self.admit(self.sticky.ownership_of(id, self.home)).is_ok()
    }

    /// Where a page of a list begins or ends reveals whether an object exists.
    fn check_cursors(self, uri: &Uri) -> Result<(), Refusal> {
        if cursors(uri).any(|id| !self.shows(&id)) {
            return Err(not_found());
        }
        Ok(())
    }

    /// Checks the fields of a form that name objects; uploads are content.
    fn check_form(self, request: &Request<RequestBody>) -> Result<(), Refusal> {
        if is_upload(request) {
            return Ok(());
        }
        let body = request.body().content().unwrap_or_default();
        let Some(fields) = form(request, &body) else {
            let text = "The references in the form cannot be checked.";
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "BadRequest", text));
        };
        let is_own = |field: &Field<'_>| field.id().is_some_and(|id| self.shows(id));
        match fields.iter().all(|field| !field.names_id() || is_own(field)) {
            true => Ok(()),
            false => Err(not_found()),
        }
    }

    fn admit(self, ownership: Ownership) -> Result<(), Refusal> {
        match ownership {
            Ownership::Own => Ok(()),
            Ownership::Unknown if self.serves_unknown => Ok(()),
            _ => Err(not_found()),
        }
    }
}

/// Whether clients are isolated for this request.
pub(crate) fn may_refer<B>(request: &Request<B>) -> bool {
    Operation::of(request.uri().path()).may_refer()
}

/// Whether the request may contain only the content of a file.
pub(crate) fn is_upload<B>(request: &Request<B>) -> bool {
    is_form(request) && matches!(Operation::of(request.uri().path()).label(), "files" | "uploads")
}

/// Whether the request lists objects of all clients.
pub(crate) fn is_list(method: &Method, uri: &Uri) -> bool {
    Operation::is_list(method, uri.path())
}

fn is_form<B>(request: &Request<B>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| kind.to_ascii_lowercase().trim_ascii().starts_with(b"multipart/"))
}

/// The parameters of a query, decoded.
pub(crate) fn pairs(uri: &Uri) -> impl Iterator<Item = (String, String)> {
    let pairs = uri.query().unwrap_or_default().split('&');
    pairs.filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let text =
            |text: &str| percent::decode_text(text).unwrap_or_else(|| text.into()).into_owned();
        (text(key), text(value))
    })
}

/// Whether a letter, a digit, `_` or `-` is escaped, which no client does: names and ids are
/// compared as written.
fn has_needless_escape(body: &[u8]) -> bool {
    memmem::find_iter(body, b"\\u00").any(|at| {
        let backslashes = body[..at].iter().rev().take_while(|&&byte| byte == b'\\').count();
        let digits = body.get(at + 4..at + 6).and_then(|digits| std::str::from_utf8(digits).ok());
        let letter = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        backslashes % 2 == 0 && letter.is_some_and(is_plain)
    })
}

/// The fields of a form, if it can be read without doubt.
fn form<'a>(request: &Request<RequestBody>, body: &'a [u8]) -> Option<Vec<Field<'a>>> {
    let kind = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    strict_form::fields(kind.unwrap_or_default(), body)
}

/// The ids of objects with which a page of a list begins or ends.
fn cursors(uri: &Uri) -> impl Iterator<Item = String> {
    let is_cursor = |key: &str, id: &str| matches!(key, "after" | "before") && !id.is_empty();
    pairs(uri).filter_map(move |(key, id)| is_cursor(&key, &id).then_some(id))
}

/// The same answer for everything that a client may not see.
fn not_found() -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        "not_found",
        "The request refers to something that does not exist, or that was not made by this client \
         through this gateway (sticky.unknown in its configuration).",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_as_an_escape_is_needless_and_a_backslash_before_it_is_text() {
        for (body, expected) in [
            (r#"{"file\u005fid":"a"}"#, true),
            (r#"{"file_id":"\u0061"}"#, true),
            (r#"{"a":"\\\u0061"}"#, true),
            (r#"{"a":"\\u0061"}"#, false),
            (r#"{"a":"\u00e4\u003c\u000a\u2028"}"#, false),
            (r#"{"a":"\u00"#, false),
        ] {
            assert_eq!(has_needless_escape(body.as_bytes()), expected, "{body}");
        }
    }
}
