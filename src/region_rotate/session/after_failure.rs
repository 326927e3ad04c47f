//! What follows a failure of one backend, for the pool and for the request.

use std::{mem, time::Instant};

use http::{Response, StatusCode};

use super::{Session, Suspect};
use crate::{
    BackendPool,
    classify::{Hint, Reason, Refusal},
    cooldown::{Failure, Load, Watch},
};

impl Session {
    /// The chosen backend failed. Unless that cannot be the request's own fault, the failure counts
    /// only once another backend answers.
    pub(super) fn failed(&mut self, now: Instant, failure: Failure) {
        let backend = self.backend;
        let cold = self.cold();
        cold.failed.insert(backend);
        let watch = cold.watch.take();
        if failure == Failure::Connect {
            cold.unreached.push(backend);
        }
        if failure == Failure::Answer {
            cold.suspects.push((backend, watch, failure));
        } else {
            self.charge(backend, watch, failure, now);
        }
    }

    /// The chosen backend's answer shows that it is misconfigured. Outer layers see that in the
    /// refusal.
    ///
    /// A missing object may be the request's own fault, if its path or deployment exists nowhere: the
    /// failure counts only once another backend serves the request. A role that allows completions
    /// but no uploads does not affect completions.
    pub(super) fn misconfigured<R>(
        &mut self,
        now: Instant,
        response: &mut Response<R>,
        request: &dyn Load,
    ) {
        Refusal::set_in(response.extensions_mut(), Reason::Misconfigured, None, Hint::None);
        let (backend, traffic) = (self.backend, self.load.of(request).traffic());
        let cold = self.cold();
        cold.failed.insert(backend);
        let watch = cold.watch.take();
        if traffic.is_of_resource() {
            return;
        }
        if response.status() == StatusCode::NOT_FOUND {
            return cold.suspects.push((backend, watch, Failure::Configuration));
        }
        self.config.pool.note_fault(backend, response.status());
        self.charge(backend, watch, Failure::Configuration, now);
    }

    fn charge(
        &self,
        backend: usize,
        watch: Option<Watch<BackendPool>>,
        failure: Failure,
        now: Instant,
    ) {
        let cooldowns = &self.config.cooldowns;
        let rest = |times| match failure {
            Failure::Configuration => cooldowns.after_misconfigured(times),
            _ => cooldowns.after_failures(times),
        };
        if failure != Failure::Configuration {
            self.config.pool.forget_fault(backend);
        }
        match watch {
            Some(watch) => watch.failed(failure, now, rest),
            None => self.config.pool.fail(backend, failure, now, rest),
        }
    }

    /// Takes a move after a failure out of the budget, if there is another backend.
    pub(super) fn affords_move(&mut self, now: Instant, request: &dyn Load) -> bool {
        let has_another = self.may_go_on(self.served.attempts().len())
            && (self.next(now, request).is_some() || self.closed_to_ask(request).is_some());
        let is_affordable = has_another && self.config.move_on.withdraw();
        self.cold().is_unaffordable = has_another && !is_affordable;
        is_affordable
    }

    /// The chosen backend answered. If it `served` the request, the failures of others were not the
    /// request's fault.
    #[inline]
    pub(super) fn settle(&mut self, served: bool, now: impl FnOnce() -> Instant) {
        if let Some(cold) = &mut self.cold {
            let suspects = if served { mem::take(&mut cold.suspects) } else { Vec::new() };
            let watch = cold.watch.take();
            if watch.is_some() || !suspects.is_empty() {
                self.settle_at(now(), watch, suspects);
            }
        }
    }

    #[cold]
    fn settle_at(&self, now: Instant, watch: Option<Watch<BackendPool>>, suspects: Vec<Suspect>) {
        if let Some(watch) = watch {
            self.config.pool.forget_fault(self.backend);
            watch.answered(now);
        }
        for (backend, watch, failure) in suspects {
            if failure == Failure::Configuration {
                self.config.pool.note_fault(backend, StatusCode::NOT_FOUND);
            }
            self.charge(backend, watch, failure, now);
        }
    }

    /// The attempt proved nothing about the chosen backend.
    pub(in crate::region_rotate) fn drop_watch(&mut self) {
        if let Some(cold) = &mut self.cold {
            cold.watch = None;
        }
    }
}
