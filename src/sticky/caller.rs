//! The backend that a caller names: in an extension, a header or a cookie.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, Request, header};

/// Names the backend whose resource a request is sent to: a request extension.
///
/// It takes precedence over the references in the request, and needs a [`Sticky`](super::Sticky).
///
/// ```
/// use tower_spillover::StickTo;
///
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(StickTo::from("sweden"));
/// # assert_eq!(request.extensions().get(), Some(&StickTo::from("sweden")));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StickTo(Cow<'static, str>);

impl StickTo {
    /// The backend named by the cookie `spillover-backend`; if there are several, by the first.
    /// Values may be arbitrary bytes; surrounding whitespace is ignored (RFC 6265, section 5.2).
    pub fn in_cookie(headers: &HeaderMap) -> Option<Self> {
        let lines = headers.get_all(header::COOKIE).iter();
        lines.flat_map(pairs).find_map(named).map(Self::from)
    }

    /// The name of the backend.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: Into<Cow<'static, str>>> From<T> for StickTo {
    fn from(name: T) -> Self {
        Self(name.into())
    }
}

/// Whether the caller names a backend.
pub(super) fn is_named<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    request.extensions().get::<StickTo>().is_some()
        || headers.contains_key(NAME)
        || StickTo::in_cookie(headers).is_some()
}

/// Removes the caller's backend name from the request. The extension takes precedence, then the
/// header, then the cookie.
pub(super) fn take_name<B>(request: &mut Request<B>) -> Option<StickTo> {
    let extension = request.extensions_mut().remove::<StickTo>();
    let headers = request.headers_mut();
    let named = headers.remove(NAME).and_then(|name| text(&name).map(StickTo::from));
    let cookie = if headers.contains_key(header::COOKIE) { take_cookie(headers) } else { None };
    extension.or(named).or(cookie)
}

/// Removes our cookies and returns the first; the headers keep all others.
fn take_cookie(headers: &mut HeaderMap) -> Option<StickTo> {
    let first = StickTo::in_cookie(headers)?;
    let mut others = Vec::new();
    for line in headers.get_all(header::COOKIE) {
        let is_ours = |pair| named(pair).is_some();
        if !pairs(line).any(is_ours) {
            others.push(line.clone());
            continue;
        }
        let left: Vec<_> = pairs(line).filter(|pair| !pair.is_empty() && !is_ours(pair)).collect();
        if let Ok(mut left) = HeaderValue::from_bytes(&left.join(&b"; "[..]))
            && !left.is_empty()
        {
            left.set_sensitive(line.is_sensitive());
            others.push(left);
        }
    }
    headers.remove(header::COOKIE);
    for line in others {
        headers.append(header::COOKIE, line);
    }
    Some(first)
}

/// The cookies of one header.
fn pairs(line: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    line.as_bytes().split(|&byte| byte == b';').map(<[u8]>::trim_ascii)
}

/// The name in a cookie of ours.
fn named(pair: &[u8]) -> Option<String> {
    let value = pair.strip_prefix(COOKIE)?.trim_ascii_start().strip_prefix(b"=")?;
    let value = String::from_utf8_lossy(value.trim_ascii());
    Some(value.trim_matches('"').to_owned())
}

fn text(value: &HeaderValue) -> Option<String> {
    value.to_str().ok().map(str::to_owned)
}

const NAME: HeaderName = HeaderName::from_static("x-spillover-backend");
const COOKIE: &[u8] = b"spillover-backend";

#[cfg(test)]
mod tests {
    use super::*;

    fn request(lines: &[(&'static str, &'static str)]) -> Request<()> {
        let mut request = Request::new(());
        for (name, value) in lines {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        request
    }

    fn taken(request: &mut Request<()>) -> Option<String> {
        take_name(request).map(|name| name.as_str().to_owned())
    }

    #[test]
    fn the_extension_counts_before_the_header_and_the_header_before_the_cookie() {
        let mut all = request(&[("x-spillover-backend", "b"), ("cookie", "spillover-backend=c")]);
        let mut two = all.clone();
        all.extensions_mut().insert(StickTo::from("a"));
        assert_eq!(taken(&mut all).as_deref(), Some("a"));
        assert!(all.headers().is_empty() && all.extensions().is_empty(), "none goes upstream");
        assert_eq!(taken(&mut two).as_deref(), Some("b"));
        assert_eq!(taken(&mut two), None);
    }

    #[test]
    fn what_is_left_of_a_secret_is_one() {
        let mut cookie = HeaderValue::from_static("session=s; spillover-backend=east");
        cookie.set_sensitive(true);
        let mut asked = request(&[]);
        asked.headers_mut().insert("cookie", cookie);
        assert_eq!(taken(&mut asked).as_deref(), Some("east"));
        assert!(asked.headers()["cookie"].is_sensitive());
    }

    #[test]
    fn a_cookie_is_read_beside_any_bytes_and_with_spaces_around_its_value() {
        for (line, left) in [
            (&b"name=J\xfcrgen; spillover-backend=east"[..], Some(&b"name=J\xfcrgen"[..])),
            (b"spillover-backend = \"east\" ", None),
            (b"spillover-backend\t=east;;a=1 ", Some(b"a=1")),
        ] {
            let mut asked = request(&[]);
            asked.headers_mut().insert("cookie", HeaderValue::from_bytes(line).unwrap());
            assert_eq!(taken(&mut asked).as_deref(), Some("east"), "{line:?}");
            assert_eq!(asked.headers().get("cookie").map(HeaderValue::as_bytes), left);
        }
    }

    #[test]
    fn other_cookies_stay_as_they_were() {
        let mut asked = request(&[
            ("cookie", "a=1; spillover-backend=\"east\";b=2"),
            ("cookie", "c=3"),
            ("cookie", "spillover-backend=west"),
        ]);
        assert_eq!(taken(&mut asked).as_deref(), Some("east"));
        let left: Vec<_> = asked.headers().get_all("cookie").iter().collect();
        assert_eq!(left, ["a=1; b=2", "c=3"]);
        for others in ["a=spillover-backend", "xspillover-backend=a", "spillover-backends=a"] {
            let mut asked = request(&[("cookie", others)]);
            assert_eq!(taken(&mut asked), None, "{others}");
            assert_eq!(asked.headers()["cookie"], others);
        }
    }
}
