//! The results of a run: how each request ended, and the totals.

use std::time::{Duration, SystemTime};

use http::{StatusCode, response::Parts};
use tower_spillover::{Served, classify::Outcome};

/// How one request ended.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// `None` when there was an error instead of a response.
    pub(crate) status: Option<StatusCode>,
    pub(crate) served: Option<Served>,
    /// The error, if the end is neither a 200 nor a 429.
    pub(crate) problem: Option<String>,
    /// The hint of a refusal.
    pub(crate) retry_after: Option<Duration>,
    pub(crate) took: Duration,
}

/// The totals of one run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) policy: &'static str,
    pub(crate) requests: usize,
    pub(crate) ok: usize,
    /// 429s that the caller saw.
    pub(crate) refused: usize,
    /// Other statuses, and errors.
    pub(crate) failed: usize,
    /// The first of those.
    pub(crate) problem: Option<String>,
    /// Answered by Standard.
    pub(crate) spilled: usize,
    /// Answered by Standard after another region had refused.
    pub(crate) rotated: usize,
    /// How long each request waited for the PTU; sorted by [`Run::finish`].
    pub(crate) waits: Vec<Duration>,
    /// In order of preference; names are known beforehand, so that unused ones appear.
    pub(crate) backends: Vec<(String, Attempts)>,
}

/// The attempts on one backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attempts {
    pub(crate) all: u64,
    pub(crate) ok: u64,
    pub(crate) throttled: u64,
}

impl Account {
    /// Records the head of the response.
    #[expect(clippy::disallowed_methods, reason = "an HTTP-date is compared with the wall clock")]
    pub(crate) fn note(&mut self, head: &Parts) {
        self.status = Some(head.status);
        self.served = head.extensions.get().cloned();
        if let Outcome::Throttled(hint) = Outcome::of(head.status, &head.headers, SystemTime::now) {
            self.retry_after = hint.duration();
        }
    }

    pub(crate) fn is_ok(&self) -> bool {
        self.problem.is_none() && self.status.is_some_and(|status| status.is_success())
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.status == Some(StatusCode::TOO_MANY_REQUESTS)
    }

    /// Whether Standard gave the answer.
    pub(crate) fn spilled(&self) -> bool {
        self.is_ok() && self.served.as_ref().is_some_and(Served::spilled)
    }

    /// Whether Standard gave the answer after another region of it had refused.
    pub(crate) fn rotated(&self) -> bool {
        self.spilled() && self.served.as_ref().is_some_and(Served::rotated)
    }

    pub(crate) fn waited(&self) -> Duration {
        self.served.as_ref().map_or(Duration::ZERO, Served::waited)
    }
}

impl Run {
    /// An empty run; `backends` are the names that can occur.
    pub(crate) fn new<'a>(
        policy: &'static str,
        backends: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let backends =
            backends.into_iter().map(|name| (name.to_owned(), Attempts::default())).collect();
        Self {
            policy,
            requests: 0,
            ok: 0,
            refused: 0,
            failed: 0,
            problem: None,
            spilled: 0,
            rotated: 0,
            waits: Vec::new(),
            backends,
        }
    }

    /// Adds a request that ended. Requests are counted when they are sent, not here, so that lost
    /// ones show.
    pub(crate) fn add(&mut self, account: Account) {
        self.waits.push(account.waited());
        self.ok += usize::from(account.is_ok());
        self.refused += usize::from(account.is_refused());
        self.spilled += usize::from(account.spilled());
        self.rotated += usize::from(account.rotated());
        if !account.is_ok() && !account.is_refused() {
            self.failed += 1;
            self.problem = self.problem.take().or(account.problem);
        }
        for attempt in account.served.iter().flat_map(Served::attempts) {
            let attempts = self.backend(attempt.backend());
            attempts.all += 1;
            attempts.ok += u64::from(attempt.status().is_some_and(|status| status.is_success()));
            attempts.throttled += u64::from(matches!(attempt.outcome(), Outcome::Throttled(_)));
        }
    }

    /// The complete totals.
    pub(crate) fn finish(mut self) -> Self {
        self.waits.sort_unstable();
        self
    }

    /// Requests that had neither a response nor an error.
    pub(crate) fn lost(&self) -> usize {
        self.requests.saturating_sub(self.ok + self.refused + self.failed)
    }

    pub(crate) fn attempts(&self) -> u64 {
        self.backends.iter().map(|(_, attempts)| attempts.all).sum()
    }

    /// `None` without a success.
    pub(crate) fn attempts_per_success(&self) -> Option<f64> {
        (self.ok > 0).then(|| self.attempts() as f64 / self.ok as f64)
    }

    /// The attempts on the backend called `name`; `None` for one that cannot occur in this run.
    pub(crate) fn attempts_on(&self, name: &str) -> Option<Attempts> {
        self.backends.iter().find(|(other, _)| other == name).map(|(_, attempts)| *attempts)
    }

    /// The wait that `percent` of the requests did not exceed (nearest rank); zero without one.
    pub(crate) fn wait(&self, percent: usize) -> Duration {
        let rank = (self.waits.len() * percent).div_ceil(100).max(1);
        self.waits.get(rank - 1).copied().unwrap_or_default()
    }
}

impl Run {
    fn backend(&mut self, name: &str) -> &mut Attempts {
        let known = self.backends.iter().position(|(other, _)| other == name);
        let index = known.unwrap_or_else(|| {
            self.backends.push((name.to_owned(), Attempts::default()));
            self.backends.len() - 1
        });
        &mut self.backends[index].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_waits_that_somebody_had() {
        let mut run = Run::new("spillover", []);
        assert_eq!(run.wait(99), Duration::ZERO);
        run.waits = (1..=10).rev().map(Duration::from_millis).collect();
        let run = run.finish();
        let waits = [0, 50, 95, 100].map(|percent| run.wait(percent).as_millis());
        assert_eq!(waits, [1, 5, 10, 10]);
    }

    #[test]
    fn a_request_without_an_end_is_lost() {
        let mut run = Run::new("spillover", ["ptu"]);
        run.requests = 2;
        let account = Account {
            status: Some(StatusCode::BAD_GATEWAY),
            problem: Some("502".to_owned()),
            ..Account::default()
        };
        run.add(account);
        assert_eq!((run.failed, run.lost(), run.attempts_per_success()), (1, 1, None));
        assert_eq!(run.problem.as_deref(), Some("502"));
    }
}
