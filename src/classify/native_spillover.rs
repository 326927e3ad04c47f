//! Azure's own spillover: answers for PTU deployments that a Standard deployment gave, or refused.

use std::{sync::Arc, time::Instant};

use http::{HeaderMap, HeaderName, Response};

use super::{Hint, Outcome};

/// What Azure's own spillover did with a request that the PTU deployment refused.
///
/// The PTU deployment, or the caller's `x-ms-spillover-deployment`, names a Standard deployment of
/// the same resource, to which Azure forwards what the PTU refuses.
///
/// Source: Microsoft Learn, "Manage traffic with spillover for provisioned deployments". Sources
/// disagree on which header appears when; any of them is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NativeSpillover<'a> {
    /// The deployment that answered, if named.
    deployment: Option<&'a [u8]>,
    /// The Standard deployment's answer, if it refused too and the head is the PTU's.
    error: Option<&'a [u8]>,
}

/// Standard deployments that refused what Azure spilled to them: part of the
/// [`Refusal`](super::Refusal), then an extension of the request when it moves on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RefusedSpills(pub(crate) Arc<[RefusedSpill]>);

/// A Standard deployment that refused what Azure spilled to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RefusedSpill {
    pub(crate) resource: Arc<str>,
    /// `None` if it is not named: any Standard deployment of the resource.
    pub(crate) deployment: Option<Box<[u8]>>,
    /// Its hint; `None` if it refused only this request.
    pub(crate) hint: Option<Hint>,
    pub(crate) at: Instant,
}

impl RefusedSpill {
    /// Adds it to `others`, replacing what was known of the same deployment.
    pub(crate) fn add_to(self, others: &mut Vec<Self>) {
        others.retain(|other| {
            (&other.resource, &other.deployment) != (&self.resource, &self.deployment)
        });
        others.push(self);
    }
}

impl RefusedSpills {
    /// Merges both; `later` takes precedence.
    pub(crate) fn and(&self, later: &Self) -> Self {
        let mut all = self.0.to_vec();
        later.0.iter().cloned().for_each(|spill| spill.add_to(&mut all));
        Self(all.into())
    }
}

impl<'a> NativeSpillover<'a> {
    /// Whether Azure answered from a deployment other than the requested one.
    pub(crate) fn has_served<R>(response: &Response<R>) -> bool {
        response.status().is_success() && NativeSpillover::of(response.headers()).is_some()
    }

    /// Reads it from `headers`; `None` if the requested deployment answered itself.
    pub(crate) fn of(headers: &'a HeaderMap) -> Option<Self> {
        // Few answers have any of these headers, so check the names first.
        if headers.keys().any(is_one_of_them) { Self::found(headers) } else { None }
    }

    #[cold]
    fn found(headers: &'a HeaderMap) -> Option<Self> {
        let is_there = headers.get(&IS_SPILLED_OVER).is_none_or(|it| !is_untrue(it.as_bytes()));
        let error = headers.get(&ERROR).map(|value| value.as_bytes().trim_ascii());
        (is_there || error.is_some()).then(|| {
            let deployment = headers.get(&DEPLOYMENT).map(|value| value.as_bytes().trim_ascii());
            Self { deployment: deployment.filter(|name| !name.is_empty()), error }
        })
    }

    /// The Standard deployment that refused; `None` if it is not named. The name of the `asked`
    /// deployment does not count.
    pub(crate) fn standard(&self, asked: Option<&[u8]>) -> Option<&'a [u8]> {
        self.deployment.filter(|&name| Some(name) != asked)
    }

    /// Whether the hint is that of the Standard deployment. It then does not apply to the PTU, which
    /// will be free much sooner.
    pub(crate) const fn is_of_standard(&self) -> bool {
        self.error.is_none()
    }

    /// Whether the Standard deployment rejected only the request, and is healthy.
    pub(crate) fn is_callers(&self, outcome: Outcome) -> bool {
        match self.error {
            None => matches!(outcome, Outcome::Answered | Outcome::ContextTooLong),
            Some(error) => error.starts_with(b"4") && error != b"429",
        }
    }
}

fn is_untrue(value: &[u8]) -> bool {
    let value = value.trim_ascii();
    value.eq_ignore_ascii_case(b"false") || value == b"0"
}

/// Documentation before 2026 spells `x-ms-spillover-from-<deployment>`.
#[inline]
fn is_one_of_them(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.len() >= MIN_NAME_BYTES
        && name.starts_with("x-ms-")
        && (name.starts_with("x-ms-spillover-from-")
            || name == "x-ms-spillover-error"
            || name == "x-ms-is-spilled-over")
}

const MIN_NAME_BYTES: usize = "x-ms-is-spilled-over".len();

static ERROR: HeaderName = HeaderName::from_static("x-ms-spillover-error");
static IS_SPILLED_OVER: HeaderName = HeaderName::from_static("x-ms-is-spilled-over");
static DEPLOYMENT: HeaderName = HeaderName::from_static("x-ms-deployment-name");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::heads::head;

    #[test]
    fn any_of_its_headers_reveals_it() {
        for (name, value, is_spilled) in [
            ("x-ms-spillover-from-deployment", "gpt-4o-ptu", true),
            ("x-ms-spillover-from-gpt-4o-ptu", "", true),
            ("x-ms-is-spilled-over", "True", true),
            ("x-ms-is-spilled-over", "false", false),
            ("x-ms-is-spilled-over", "FALSE", false),
            ("x-ms-is-spilled-over", " false", false),
            ("x-ms-is-spilled-over", "0", false),
            ("x-ms-is-spilled-over", "1", true),
            ("x-ms-spillover-error", "429", true),
            ("x-ms-deployment-name", "gpt-4o", false),
            ("x-ms-region", "East US 2", false),
            ("x-spillover-from-deployment", "a", false),
        ] {
            let headers = head(&[("x-ms-region", "East US"), (name, value)]);
            assert_eq!(NativeSpillover::of(&headers).is_some(), is_spilled, "{name}: {value}");
        }
        assert_eq!(NativeSpillover::of(&HeaderMap::new()), None);
    }

    #[test]
    fn the_standard_deployment_is_named_unless_the_name_is_that_of_the_ptu() {
        let headers =
            head(&[("x-ms-spillover-error", "429"), ("x-ms-deployment-name", " gpt-4o ")]);
        let spillover = NativeSpillover::of(&headers).expect("spilled");
        assert_eq!(spillover.standard(Some(b"gpt-4o-ptu")), Some(&b"gpt-4o"[..]));
        assert_eq!(spillover.standard(Some(b"gpt-4o")), None);
        assert_eq!(spillover.standard(None), Some(&b"gpt-4o"[..]));
        assert!(!spillover.is_of_standard());
    }
}
