//! The account of one request, left on its response: who answered, and after what.

mod why;

use std::{
    fmt, iter,
    ops::{Deref, DerefMut},
    slice,
    sync::Arc,
    time::Duration,
};

use http::{Response, StatusCode};

pub use self::why::{TimeAndLimit, Why};
use crate::{
    classify::{Hint, Outcome, Reason, Refusal, utilization},
    cooldown::Traffic,
};

/// The account of one request: the backend that answered, every attempt before, and the time spent
/// waiting. Each layer of this crate leaves it in the extensions of its response, where outer layers
/// find and extend it.
///
/// `Display` is a line for a log: the attempts, each with its status and hint, then anything else
/// that happened.
///
/// ```
/// # use tower_spillover::Served;
/// # fn log(response: http::Response<()>) {
/// if let Some(served) = response.extensions().get::<Served>() {
///     println!("{served}"); // ptu-east 429 (43 ms), ptu-east 200; waited 43 ms
/// }
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Served {
    /// The first attempt is stored inline: most requests have no second one.
    first: Option<Attempt>,
    rest: Vec<Attempt>,
    /// The number of attempts before the tier of the last one.
    before: u16,
    /// Whether a layer itself gave the answer.
    own: bool,
    waited: Nanos,
    spilled: bool,
    spilled_by_azure: bool,
    replayable: bool,
    held: Option<StickyMatch>,
    why_waited: Option<Why>,
    why_spilled: Option<Why>,
    why_refused: Option<Why>,
    late: Option<Late>,
    as_default: bool,
    gate_alone: bool,
    /// The kind of traffic of the request, if a refusal was about that.
    traffic: Option<Traffic>,
}

/// The result of a second attempt at a request whose first token was late; see
/// [`FirstTokenLayer`](crate::FirstTokenLayer).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Late {
    /// The first attempt was dropped in its favour.
    MovedOn,
    /// It was answered before the first attempt, which ran concurrently.
    HedgeWon,
    /// The first attempt was answered before it.
    HedgeLost,
}

/// Nanoseconds, up to five centuries: half the size of a [`Duration`], so that an account takes 128
/// bytes; a larger one is moved by a call of `memcpy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Nanos(u64);

/// One attempt of a request.
#[derive(Clone, Debug)]
pub struct Attempt {
    backend: Arc<str>,
    at: Nanos,
    status: Option<StatusCode>,
    outcome: Outcome,
    reason: Option<Reason>,
    /// In tenths of a percent.
    utilization: Option<u16>,
}

/// Why a request was pinned to one resource; see [`Sticky`](crate::Sticky).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StickyMatch {
    /// Its caller named a backend.
    ByName,
    /// It refers to an id that this resource is known to hold.
    ById,
    /// It lists, or creates something without a reference: the resource is its client's home.
    Home,
    /// It refers to an unknown id, or names an unknown backend: the resource is a guess, its client's
    /// home, and a "not found" in the answer may be wrong.
    Default,
}

impl Served {
    /// The backend that answered; `None` if a layer answered itself, because no backend was left.
    pub fn backend(&self) -> Option<&str> {
        self.attempts().next_back().filter(|_| !self.own).map(Attempt::backend)
    }

    /// Every attempt in order; the one that was answered, if any, is last.
    pub fn attempts(&self) -> Attempts<'_> {
        Attempts(self.first.iter().chain(&self.rest))
    }

    /// The time spent waiting for a backend to reopen, without the attempts themselves.
    pub fn waited(&self) -> Duration {
        self.waited.duration()
    }

    /// Whether the answer came from the fallback tier, or from the deployment to which Azure itself
    /// spilled.
    pub fn spilled(&self) -> bool {
        self.spilled || self.spilled_by_azure
    }

    /// Whether Azure itself spilled the request, within the requested resource. The backend named is
    /// then the PTU, and Standard is billed.
    pub fn spilled_by_azure(&self) -> bool {
        self.spilled_by_azure
    }

    /// Whether another backend of the same tier, that is, of the same pool, was tried before the one
    /// that answered. A spill alone is not a rotation.
    pub fn rotated(&self) -> bool {
        let of_tier = self.attempts().skip(usize::from(self.before));
        self.backend().is_some_and(|last| of_tier.map(Attempt::backend).any(|name| name != last))
    }

    /// Whether the request's body could have been sent again. If not, it got a single attempt.
    pub fn replayable(&self) -> bool {
        self.replayable
    }

    /// Why the request was pinned to one resource, if it was; needs a [`Sticky`](crate::Sticky).
    pub fn held(&self) -> Option<StickyMatch> {
        self.held
    }

    /// Why the request did not go straight through: why it was refused, or else why it spilled,
    /// waited, or left the last backend that did not serve it. `None` if the first attempt was
    /// answered immediately.
    pub fn why(&self) -> Option<Why> {
        let moved_on = || self.attempts().rev().find_map(Attempt::why);
        self.why_refused.or_else(|| self.why_spilled()).or(self.why_waited).or_else(moved_on)
    }

    /// Why it waited, if it did; for several waits, the last reason.
    pub fn why_waited(&self) -> Option<Why> {
        self.why_waited
    }

    /// Why it was sent to the fallback, if it was, or that Azure itself spilled it.
    pub fn why_spilled(&self) -> Option<Why> {
        self.why_spilled.or_else(|| self.spilled_by_azure.then_some(Why::ByAzure))
    }

    /// Why its caller got a refusal or a failure instead of another attempt. `None` if the backend's
    /// answer goes to the caller in any case.
    pub fn why_refused(&self) -> Option<Why> {
        self.why_refused
    }

    /// The result of a second attempt, if one was made because the first token was late. The attempts
    /// of both are listed, those of the slower one first.
    pub fn late(&self) -> Option<Late> {
        self.late
    }

    /// Whether a request of the flex service tier continued in the default tier; see
    /// [`flex_as_default`](crate::RegionRotateLayer::flex_as_default).
    pub fn went_on_as_default(&self) -> bool {
        self.as_default
    }

    /// Whether the gate of a fleet decided about the request without the fleet's store, which was away; see
    /// [`Gate::fleet`](crate::Gate::fleet).
    pub fn gate_was_alone(&self) -> bool {
        self.gate_alone
    }

    /// Whether a layer of this crate has left its account on `response`.
    pub(crate) fn is_on<R>(response: &Response<R>) -> bool {
        response.extensions().get::<Self>().is_some()
    }

    pub(crate) const fn new() -> Self {
        Self {
            first: None,
            rest: Vec::new(),
            before: 0,
            own: false,
            waited: Nanos(0),
            spilled: false,
            spilled_by_azure: false,
            replayable: true,
            held: None,
            why_waited: None,
            why_spilled: None,
            why_refused: None,
            late: None,
            as_default: false,
            gate_alone: false,
            traffic: None,
        }
    }

    pub(crate) fn push(&mut self, attempt: Attempt) {
        if self.first.is_none() {
            self.first = Some(attempt);
        } else {
            self.rest.push(attempt);
        }
    }

    /// The backend of the last attempt refused, and reported its utilization.
    pub(crate) fn set_utilization(&mut self, share: f64) {
        if let Some(last) = self.rest.last_mut().or(self.first.as_mut()) {
            // The cast saturates; Azure reports tenths of a percent.
            last.utilization = Some((share * 1e3).round() as u16);
        }
    }

    pub(crate) fn set_own(&mut self) {
        self.own = true;
    }

    pub(crate) fn add_wait(&mut self, waited: Duration, why: Option<Why>) {
        self.waited = self.waited.plus(waited);
        self.why_waited = why.or(self.why_waited);
    }

    /// The attempts from number `before` on belong to the fallback tier.
    pub(crate) fn set_spilled(&mut self, before: usize, why: Option<Why>) {
        (self.spilled, self.why_spilled) = (true, why);
        self.before = self.before.max(count(before));
    }

    /// The caller gets a refusal or a failure.
    pub(crate) fn set_why_refused(&mut self, why: Option<Why>) {
        self.why_refused = why;
    }

    /// The attempts from here on belong to the primary tier, after the fallback.
    pub(crate) fn set_returned(&mut self) {
        (self.spilled, self.why_spilled, self.why_refused) = (false, None, None);
        self.before = count(self.attempts().len());
    }

    pub(crate) fn set_spilled_by_azure(&mut self) {
        self.spilled_by_azure = true;
    }

    pub(crate) fn set_unreplayable(&mut self) {
        self.replayable = false;
    }

    pub(crate) fn set_held(&mut self, held: Option<StickyMatch>) {
        self.held = held;
    }

    pub(crate) fn set_gate_alone(&mut self) {
        self.gate_alone = true;
    }

    pub(crate) fn set_as_default(&mut self) {
        self.as_default = true;
    }

    pub(crate) fn set_traffic(&mut self, traffic: Traffic) {
        self.traffic = Some(traffic);
    }

    /// The kind of traffic of the request that was refused with `response`, if an inner layer has read
    /// it. Not that of a request which it has changed.
    pub(crate) fn traffic_of<R>(response: &Response<R>) -> Option<Traffic> {
        let served = response.extensions().get::<Self>()?;
        served.traffic.filter(|_| !served.as_default)
    }

    /// Whether any attempt was refused for rate or capacity.
    pub(crate) fn is_throttled(&self) -> bool {
        self.attempts().any(|attempt| matches!(attempt.outcome, Outcome::Throttled(_)))
    }

    /// Whether this account adds nothing to that of an inner layer.
    pub(crate) fn is_plain(&self) -> bool {
        self.first.is_none()
            && self.waited == Nanos::default()
            && !self.spilled()
            && !self.gate_alone
            && self.replayable
    }

    /// Takes over an inner layer's waits and spill. Its attempts count as one here: that at the
    /// backend which this layer chose.
    pub(crate) fn adopt(&mut self, inner: &Self) {
        self.add_wait(inner.waited(), inner.why_waited);
        self.spilled = inner.spilled;
        self.spilled_by_azure = inner.spilled_by_azure;
        // An attempt's own account says why it was not the last one.
        (self.why_spilled, self.why_refused) = (inner.why_spilled, inner.why_refused);
        self.replayable &= inner.replayable;
        self.held = self.held.or(inner.held);
        self.late = self.late.or(inner.late);
        self.as_default |= inner.as_default;
        self.gate_alone |= inner.gate_alone;
    }

    /// The same, after what this layer found was written.
    #[cold]
    pub(crate) fn adopt_under(&mut self, inner: &Self) {
        let by_azure = self.spilled_by_azure;
        self.adopt(inner);
        self.spilled_by_azure |= by_azure;
    }

    /// The account of a request that was sent twice. This one is that of the sending whose answer the
    /// caller gets; it started `offset` after the request's arrival. The `others` are the attempts of
    /// the other sending.
    pub(crate) fn beside(self, others: Vec<Attempt>, offset: Duration, late: Late) -> Self {
        let before = count(others.len()).saturating_add(self.before);
        // A rotation happens within a tier, and before the answer.
        let is_rotation = late != Late::HedgeLost && !self.spilled;
        let mut served = Self::new();
        others.into_iter().for_each(|attempt| served.push(attempt));
        served.append(self, offset);
        if !is_rotation {
            served.before = before;
        }
        served.late = Some(late);
        served
    }

    /// Adds an attempt at `name`, whose `result` has this `outcome`: from the account of an inner
    /// layer, whose clock started `at` after this one's, or as a single attempt. Returns the utilization
    /// reported with a single one that refused.
    pub(crate) fn absorb<R, E>(
        &mut self,
        name: &Arc<str>,
        at: Duration,
        result: &mut Result<Response<R>, E>,
        outcome: Outcome,
    ) -> Option<f64> {
        if let Ok(response) = result
            && let Some(inner) = response.extensions_mut().remove()
        {
            self.append(inner, at);
            return None;
        }
        let response = result.as_ref().ok();
        let refused = response.filter(|_| outcome != Outcome::Answered);
        let reason = refused.and_then(Refusal::of).and_then(Refusal::known_reason);
        let status = response.map(Response::status);
        (self.own, self.spilled) = (false, false);
        (self.why_spilled, self.why_refused) = (None, None);
        let share = refused.and_then(|response| utilization(response.headers()));
        self.push(Attempt::new(Arc::clone(name), at, status, outcome).because(reason));
        if let Some(share) = share {
            self.set_utilization(share);
        }
        share
    }

    /// Leaves the account on the caller's response. If the request is not `is_kept`, it could not
    /// have been sent again.
    pub(crate) fn sign<R, E>(mut self, result: &mut Result<Response<R>, E>, is_kept: bool) {
        if let Ok(response) = result {
            self.replayable &= is_kept;
            response.extensions_mut().insert(self);
        }
    }

    fn append(&mut self, inner: Self, offset: Duration) {
        self.adopt(&inner);
        self.own = inner.own;
        // A tier without inner tiers continues where it was left when it is called again.
        if self.before > 0 || inner.before > 0 {
            self.before = count(self.attempts().len()).saturating_add(inner.before);
        }
        for mut attempt in inner.first.into_iter().chain(inner.rest) {
            attempt.at = attempt.at.plus(offset);
            self.push(attempt);
        }
    }
}

/// The account that a layer keeps of a request. Before anything has happened there is nothing in it
/// that would have to be written or moved.
#[derive(Debug, Default)]
pub(crate) struct Account(Option<Served>);

impl Account {
    /// Whether nothing has happened yet.
    pub(crate) const fn is_untouched(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn take(&mut self) -> Served {
        self.0.take().unwrap_or_else(Served::new)
    }
}

impl Deref for Account {
    type Target = Served;

    #[inline]
    fn deref(&self) -> &Served {
        static NOTHING: Served = Served::new();
        self.0.as_ref().unwrap_or(&NOTHING)
    }
}

impl DerefMut for Account {
    #[inline]
    fn deref_mut(&mut self) -> &mut Served {
        self.0.get_or_insert_with(Served::new)
    }
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for attempt in self.attempts() {
            f.write_str(separator)?;
            attempt.fmt(f)?;
            separator = ", ";
        }
        let waited = self.waited().as_millis();
        for (is_so, remark) in [
            (
                !self.waited().is_zero(),
                format_args!("waited {waited} ms{}", Because(self.why_waited)),
            ),
            (self.spilled, format_args!("spilled{}", Because(self.why_spilled))),
            (self.spilled_by_azure, format_args!("spilled by Azure")),
            (self.held == Some(StickyMatch::ByName), format_args!("held by name")),
            (self.held == Some(StickyMatch::ById), format_args!("held")),
            (self.held == Some(StickyMatch::Home), format_args!("held at home")),
            (self.held == Some(StickyMatch::Default), format_args!("held without knowing")),
            (!self.replayable, format_args!("not replayable")),
            (self.as_default, format_args!("flex as default")),
            (self.gate_alone, format_args!("gate without its fleet")),
            (self.why_refused.is_some(), format_args!("refused{}", Because(self.why_refused))),
        ] {
            if is_so {
                separator = if separator.is_empty() { "" } else { "; " };
                write!(f, "{separator}{remark}")?;
                separator = "; ";
            }
        }
        Ok(())
    }
}

impl Nanos {
    fn plus(self, time: Duration) -> Self {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }

    const fn duration(self) -> Duration {
        Duration::from_nanos(self.0)
    }
}

/// Saturates; no request makes that many attempts.
fn count(attempts: usize) -> u16 {
    u16::try_from(attempts).unwrap_or(u16::MAX)
}

/// A reason after a remark.
struct Because(Option<Why>);

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |why| write!(f, ": {why}"))
    }
}

impl Attempt {
    pub(crate) fn new(
        backend: Arc<str>,
        at: Duration,
        status: Option<StatusCode>,
        outcome: Outcome,
    ) -> Self {
        let at = Nanos::default().plus(at);
        Self { backend, at, status, outcome, reason: None, utilization: None }
    }

    /// Adds why the backend refused, if known.
    pub(crate) fn because(mut self, reason: Option<Reason>) -> Self {
        self.reason = reason;
        self
    }

    /// The same attempt with another start time after the arrival.
    pub(crate) fn begun(mut self, at: Duration) -> Self {
        self.at = Nanos::default().plus(at);
        self
    }

    /// The name of the backend that was called.
    pub fn backend(&self) -> &str {
        &self.backend
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn shared_name(&self) -> &Arc<str> {
        &self.backend
    }

    /// When the attempt was started, counted from the request's arrival.
    pub fn at(&self) -> Duration {
        self.at.duration()
    }

    /// The status of the answer; `None` for a transport error, a credential that could not be
    /// obtained, or an attempt that was dropped.
    pub fn status(&self) -> Option<StatusCode> {
        self.status
    }

    /// The outcome of the answer.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Why the backend refused, if a layer that reads bodies found it.
    pub fn reason(&self) -> Option<Reason> {
        self.reason
    }

    /// Why it did not answer the request; `None` if it did, whatever the status.
    pub fn why(&self) -> Option<Why> {
        Why::of(self)
    }

    /// The utilization that a refusing PTU reported, as a share of its limit: 1.016 for `101.6%` in
    /// `azure-openai-deployment-utilization`. `None` unless it refused and reported it; for an
    /// answer, use [`classify::utilization`](crate::classify::utilization).
    pub fn utilization(&self) -> Option<f64> {
        self.utilization.map(|tenths| f64::from(tenths) / 1e3)
    }

    /// The backend's hint; [`Hint::None`] unless it refused.
    pub fn hint(&self) -> Hint {
        match self.outcome {
            Outcome::Throttled(hint) => hint,
            _ => Hint::None,
        }
    }
}

/// The backend, the status (`failed` or `late` without one), why it refused, if that is known and not
/// a rate limit, and its hint, if it had one.
impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // In pieces, which cost less than a format: it is in the log line of each request.
        f.write_str(&self.backend)?;
        f.write_str(" ")?;
        f.write_str(match &self.status {
            Some(status) => status.as_str(),
            None if self.outcome == Outcome::Late => "late",
            None => "failed",
        })?;
        match self.reason {
            Some(Reason::Capacity) => f.write_str(" no capacity")?,
            Some(Reason::Quota) => f.write_str(" no quota")?,
            Some(Reason::ContextLength) => f.write_str(" too long a request")?,
            Some(Reason::ServiceTier) => f.write_str(" no such tier")?,
            Some(Reason::Misconfigured) => f.write_str(" misconfigured")?,
            Some(Reason::Content | Reason::Rate | Reason::Unknown) | None => {}
        }
        match self.hint() {
            Hint::None => Ok(()),
            Hint::TooLong => f.write_str(" (too long)"),
            Hint::Zero => f.write_str(" (0 ms)"),
            Hint::After(wait) => write!(f, " ({} ms)", wait.as_millis()),
        }
    }
}

/// The attempts of a request, in order; returned by [`Served::attempts`].
#[derive(Clone, Debug)]
pub struct Attempts<'a>(iter::Chain<std::option::Iter<'a, Attempt>, slice::Iter<'a, Attempt>>);

impl<'a> Iterator for Attempts<'a> {
    type Item = &'a Attempt;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl DoubleEndedIterator for Attempts<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.0.next_back()
    }
}

impl ExactSizeIterator for Attempts<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(backend: &str, status: u16, outcome: Outcome) -> Attempt {
        Attempt::new(backend.into(), Duration::ZERO, StatusCode::from_u16(status).ok(), outcome)
    }

    #[test]
    fn an_account_is_small_enough_to_be_moved_without_a_call() {
        assert!(size_of::<Served>() <= 128, "{}", size_of::<Served>());
    }

    #[test]
    fn a_line_tells_refusals_failures_waits_and_what_could_not_be_done() {
        let mut served = Served::new();
        served.push(attempt("a", 0, Outcome::Failed));
        served.push(attempt("b", 429, Outcome::Throttled(Hint::None)));
        served.push(attempt("b", 503, Outcome::Throttled(Hint::TooLong)));
        served.push(attempt("c", 500, Outcome::Failed));
        assert_eq!(served.to_string(), "a failed, b 429, b 503 (too long), c 500");
        served.add_wait(Duration::from_micros(1_999), None);
        served.set_spilled(1, Some(Why::Failed));
        served.set_unreplayable();
        assert!(
            served.to_string().ends_with("c 500; waited 1 ms; spilled: failed; not replayable")
        );
    }

    #[test]
    fn a_line_tells_why_a_backend_refused_and_who_spilled() {
        let mut served = Served::new();
        let day = Outcome::Throttled(Hint::TooLong);
        served.push(attempt("a", 429, day).because(Some(Reason::Quota)));
        let full = Outcome::Throttled(Hint::None);
        served.push(attempt("b", 429, full).because(Some(Reason::Capacity)));
        served.push(attempt("c", 200, Outcome::Answered));
        served.set_spilled_by_azure();
        assert_eq!(
            served.to_string(),
            "a 429 no quota (too long), b 429 no capacity, c 200; spilled by Azure"
        );
    }
}
