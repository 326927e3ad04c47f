//! Writes the verdict of a provider's rules into a response, so that every outer layer can read it.

use std::{fmt, sync::Arc, time::SystemTime};

use http::{HeaderMap, Response, StatusCode, header::RETRY_AFTER};

use super::{Classify, Hint, Outcome, Refusal, names, outcome::is_refusal, write_wait};

/// The rules by which a layer or a backend reads heads; `None` for Azure's own, which need no
/// rewriting.
#[derive(Clone, Default)]
pub(crate) struct Rules(Option<Arc<dyn Classify>>);

impl Rules {
    /// Azure's.
    pub(crate) const AZURE: Self = Self(None);

    pub(crate) fn new(rules: impl Classify) -> Self {
        Self(Some(Arc::new(rules)))
    }

    /// Applies the rules to the head of `response`, unless it is a success. A response that
    /// `is_signed` comes from a layer of this crate that makes attempts, and needs no rules.
    #[inline]
    pub(crate) fn apply<R>(
        &self,
        response: &mut Response<R>,
        is_signed: fn(&Response<R>) -> bool,
        now: fn() -> SystemTime,
    ) {
        if response.status().as_u16() >= 400
            && let Some(rules) = &self.0
            && !is_signed(response)
        {
            translate(response, &**rules, now);
        }
    }
}

/// Shows nothing of the rules.
impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Rules(..)" } else { "Rules(azure)" })
    }
}

#[cold]
fn translate<R>(response: &mut Response<R>, rules: &dyn Classify, now: fn() -> SystemTime) {
    // An inner layer has read it by its own rules.
    if Refusal::of(response).is_some_and(Refusal::has_verdict) {
        return;
    }
    let mut verdict = rules.classify(response.status(), response.headers(), &now);
    if let Outcome::Throttled(hint) = &mut verdict.outcome {
        // A client error that is a refusal becomes a 429 here; a failure stays a 5xx.
        if response.status().is_client_error() && !is_refusal(response.status()) {
            *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        }
        *hint = ask(response.headers_mut(), *hint);
    }
    Refusal::set_verdict(response.extensions_mut(), verdict);
}

/// Makes `hint` the only hint of `headers`. Limit headers stay. Returns the hint that they then
/// carry, a whole number of milliseconds.
fn ask(headers: &mut HeaderMap, hint: Hint) -> Hint {
    if let Hint::After(wait) = hint {
        headers.remove(&names::GRPC_RETRY_PUSHBACK_MS);
        return write_wait(headers, wait);
    }
    if hint != Hint::TooLong {
        // Headers that the rules ignore as hints must not be read by others.
        for name in [
            &names::RETRY_AFTER_MS,
            &names::X_MS_RETRY_AFTER_MS,
            &names::GRPC_RETRY_PUSHBACK_MS,
            &RETRY_AFTER,
        ] {
            headers.remove(name);
        }
    }
    hint
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::classify::{
        Limit, Reason, Verdict,
        heads::{NOW, any_head, head},
    };

    struct Always(Verdict);

    impl Classify for Always {
        fn classify(&self, _: StatusCode, _: &HeaderMap, _: &dyn Fn() -> SystemTime) -> Verdict {
            self.0
        }
    }

    fn answer(status: u16, headers: HeaderMap) -> Response<()> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        *response.headers_mut() = headers;
        response
    }

    fn read(mut response: Response<()>, verdict: impl Into<Verdict>) -> Response<()> {
        Rules::new(Always(verdict.into())).apply(&mut response, |_| false, NOW);
        response
    }

    #[test]
    fn a_refusal_in_the_clothes_of_a_client_s_error_becomes_a_429_with_its_wait() {
        let hint = Hint::After(Duration::from_millis(1_500));
        let response = read(answer(400, HeaderMap::new()), Outcome::Throttled(hint));
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()["retry-after-ms"], "1500");
        assert_eq!(response.headers()["retry-after"], "2");
        for status in [429, 503, 529] {
            let response = read(answer(status, HeaderMap::new()), Outcome::Throttled(hint));
            assert_eq!(response.status().as_u16(), status);
        }
    }

    #[test]
    fn a_success_and_what_another_layer_signed_are_left_alone() {
        let throttled = Outcome::Throttled(Hint::TooLong);
        for status in [200, 204, 302] {
            let response = read(answer(status, HeaderMap::new()), throttled);
            assert!(Refusal::of(&response).is_none());
        }
        let mut signed = answer(429, head(&[("retry-after-ms", "43")]));
        Rules::new(Always(throttled.into())).apply(&mut signed, |_| true, NOW);
        assert!(Refusal::of(&signed).is_none());
        let first = read(signed, Outcome::Failed);
        assert_eq!(Outcome::of_response(&read(first, throttled), NOW), Outcome::Failed);
    }

    #[test]
    fn what_a_body_said_counts_before_the_head_and_the_head_where_it_was_silent() {
        let verdict = Verdict::new(Outcome::Throttled(Hint::None))
            .because(Reason::Rate)
            .of_limit(Limit::Tokens);
        let mut response = answer(429, HeaderMap::new());
        Refusal::set_in(response.extensions_mut(), Reason::Quota, None, Hint::None);
        let response = read(response, verdict);
        let refusal = Refusal::of(&response).expect("a refusal");
        assert_eq!((refusal.reason(), refusal.limit()), (Reason::Quota, Some(Limit::Tokens)));
        let response = read(answer(429, HeaderMap::new()), verdict);
        assert_eq!(Refusal::of(&response).map(Refusal::reason), Some(Reason::Rate));
    }

    #[test]
    fn a_layer_between_that_writes_another_wait_is_obeyed() {
        for hint in [Hint::None, Hint::Zero, Hint::After(Duration::from_secs(9))] {
            let mut response = read(answer(429, HeaderMap::new()), Outcome::Throttled(hint));
            response.headers_mut().insert("retry-after-ms", 250.into());
            let own = Hint::After(Duration::from_millis(250));
            assert_eq!(Outcome::of_response(&response, NOW), Outcome::Throttled(own), "{hint:?}");
        }
    }

    #[test]
    fn only_a_limit_of_tokens_is_about_the_weight_of_a_request() {
        let long = Hint::After(Duration::from_secs(3_600));
        for (limit, expected) in
            [(None, false), (Some(Limit::Calls), false), (Some(Limit::Tokens), true)]
        {
            let verdict = Verdict::new(Outcome::Throttled(long)).of_limit(limit);
            let response = read(answer(429, HeaderMap::new()), verdict);
            assert_eq!(Refusal::is_about_weight(&response, long), expected, "{limit:?}");
        }
    }

    fn any_outcome() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            prop::sample::select(vec![
                Outcome::Answered,
                Outcome::ContextTooLong,
                Outcome::TierNotOffered,
                Outcome::Misconfigured,
                Outcome::Failed,
                Outcome::Throttled(Hint::None),
                Outcome::Throttled(Hint::Zero),
                Outcome::Throttled(Hint::TooLong),
            ]),
            (1_u64..=86_400_000)
                .prop_map(|ms| Outcome::Throttled(Hint::After(Duration::from_millis(ms)))),
        ]
    }

    proptest! {
        #[test]
        fn every_layer_outside_reads_what_the_rules_found(
            headers in any_head(),
            status in 400_u16..600,
            outcome in any_outcome(),
        ) {
            let response = read(answer(status, headers), outcome);
            prop_assert_eq!(Outcome::of_response(&response, NOW), outcome);
        }
    }
}
