//! `x-should-retry`: what a service says about sending a request again.

use std::time::Duration;

use http::{HeaderMap, Response};

use super::names;
use crate::Served;

/// What `headers` say about sending the request again, if anything.
pub(crate) fn should_retry(headers: &HeaderMap) -> Option<bool> {
    match headers.get(&names::X_SHOULD_RETRY)?.as_bytes().trim_ascii() {
        b"true" | b"True" => Some(true),
        b"false" | b"False" => Some(false),
        _ => None,
    }
}

/// A response extension: every backend that was asked forbade to be asked again by this request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NotAgain;

/// A response extension: of the backends of a closed pool one that fails reopens first. Whether it is
/// back then, nobody knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failing {
    /// When the first of those reopens that refused, and are worth waiting for.
    pub(crate) refused: Option<Duration>,
}

/// Whether whoever refused forbids this request to come back.
///
/// Where a layer of this crate signed the refusal, the header is that layer's word to clients, which
/// have less time than the layers around it.
pub(crate) fn forbids_retry<B>(response: &Response<B>) -> bool {
    let extensions = response.extensions();
    extensions.get::<NotAgain>().is_some()
        || should_retry(response.headers()) == Some(false) && extensions.get::<Served>().is_none()
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

    #[test]
    fn a_layer_s_word_to_clients_does_not_bind_the_layers_around_it() {
        let mut response = Response::new(());
        *response.headers_mut() = head(&[("x-should-retry", "false")]);
        assert!(forbids_retry(&response));
        response.extensions_mut().insert(Served::new());
        assert!(!forbids_retry(&response));
        response.extensions_mut().insert(NotAgain);
        assert!(forbids_retry(&response));
    }
}
