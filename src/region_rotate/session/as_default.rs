//! Lets a request of the flex service tier continue as one of the default tier.

use std::time::Instant;

use http::Request;

use super::Session;
use crate::{
    TryCloneBody,
    backend::{RequestReading, ask_for_default_tier},
    classify::Outcome,
    cooldown::{Load, Traffic},
    region_rotate::load_reading::LoadReading,
    request_copy::SavedRequest,
};

impl Session {
    /// Whether the request may continue in the default tier after flex was refused everywhere.
    pub(super) fn may_become_default(&self, request: &dyn Load) -> bool {
        self.config.flex_as_default && self.load.of(request).traffic() == Traffic::Flex
    }

    /// Changes `request`, for which no backend is left, to the default tier if that is allowed, and
    /// chooses a backend; returns whether there is one.
    #[cold]
    pub(in crate::region_rotate) fn go_on_as_default<B: TryCloneBody>(
        &mut self,
        now: Instant,
        request: &mut Request<B>,
    ) -> bool {
        if !self.may_become_default(request) || !ask_for_default_tier(request) {
            return false;
        }
        (self.load, self.reading) = (LoadReading::default(), RequestReading::default());
        self.tried = self.cold.as_ref().map(|cold| cold.failed.clone()).unwrap_or_default();
        self.leave_out(request.extensions());
        let is_chosen = self.choose(now, request);
        if is_chosen {
            self.served.set_as_default();
        }
        is_chosen
    }

    /// The same after an attempt with this `outcome`, unless it failed.
    #[cold]
    pub(in crate::region_rotate) fn go_on_again_as_default<B: TryCloneBody>(
        &mut self,
        outcome: Outcome,
        now: Instant,
        saved: &mut SavedRequest<B>,
    ) -> bool {
        outcome != Outcome::Failed
            && self.may_become_default(saved)
            && saved.whole_mut().is_some_and(|request| self.go_on_as_default(now, request))
    }
}
