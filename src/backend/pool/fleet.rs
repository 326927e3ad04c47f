//! Cooldowns that the processes of a fleet share.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use super::{BackendPool, PoolShared};
use crate::{
    clock,
    cooldown::{Closed, CooldownReason},
    fleet::{Caller, Closing, Fleet, Kind, Name},
};

/// Where the pool's refusals are reported.
pub(super) struct FleetCooldowns {
    caller: Arc<Caller>,
    /// Of each backend.
    names: Box<[Name]>,
}

impl BackendPool {
    /// Shares the cooldowns of refusals with the processes of `fleet` that have a pool of the same
    /// name, `of`, with backends of the same resource and deployment. The name is usually the
    /// model's. A pool is in one fleet; the first one wins.
    ///
    /// A refusal in one process closes the backend in all of them, for at most `longest` in this one:
    /// the [longest cooldown](crate::policy::CooldownPolicy::longest) of its own policy. Failures are
    /// not shared: a process that cannot reach a backend would keep the others from it.
    #[must_use]
    pub fn fleet(self, fleet: &Fleet, of: &str, longest: Duration) -> Self {
        let caller = Arc::clone(fleet.caller());
        let name = |member: &super::PreparedBackend| {
            let deployment = member.deployment().unwrap_or_default();
            caller.name(Kind::Cooldown, &format!("{of} {} {deployment}", member.resource()))
        };
        let names: Box<[Name]> = self.shared.members.iter().map(name).collect();
        let cooldowns = FleetCooldowns { caller: Arc::clone(&caller), names: names.clone() };
        if self.shared.fleet.set(cooldowns).is_err() {
            return self;
        }
        for (index, name) in names.iter().enumerate() {
            let pool = Arc::downgrade(&self.shared);
            caller.follow(name, Box::new(move |closing| hear(&pool, index, closing, longest)));
        }
        self
    }
}

impl FleetCooldowns {
    pub(super) fn close(
        &self,
        index: usize,
        closed: Closed,
        (left, said): (Duration, Duration),
        why: CooldownReason,
    ) {
        let closing = Closing { what: closed.code(), left, said, why: why as u8 };
        self.caller.close(&self.names[index], closing);
    }
}

/// Another process, or this one, was refused. Returns whether the pool still exists.
fn hear(pool: &Weak<PoolShared>, index: usize, closing: Closing, longest: Duration) -> bool {
    let Some(pool) = pool.upgrade() else { return false };
    if let Some(closed) = Closed::of_code(closing.what) {
        let times = (closing.left.min(longest), closing.said.min(LONGEST_HINT));
        let why = CooldownReason::of_code(closing.why);
        pool.cooldowns.close(index, closed, clock::now(), times, why);
    }
    true
}

/// As hints of the service are limited: a store may send anything.
const LONGEST_HINT: Duration = Duration::from_secs(24 * 3_600);
