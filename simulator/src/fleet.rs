//! The store that the processes of a run share, behind a network of its own.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use tower_spillover::{
    ConfigError,
    fleet::{
        Allowance, Fleet, GateCall, GateNews, GateReply, Local, Name, Store, Taken, Unreachable,
    },
};

use super::network::Run;

/// How the processes reach their store.
#[derive(Clone, Copy, Debug)]
pub(super) struct StorePlan {
    pub(super) round_trip: Duration,
    /// When it does not answer: from when, for how long.
    pub(super) outage: Option<(Duration, Duration)>,
    /// How often it loses its data.
    pub(super) forgets_every: Option<Duration>,
    /// The share of processes that do not reach it any more, and from when on.
    pub(super) cut_off: (f64, Duration),
}

impl StorePlan {
    pub(super) const fn new(round_trip: Duration) -> Self {
        Self { round_trip, outage: None, forgets_every: None, cut_off: (0.0, Duration::ZERO) }
    }

    /// From when on the process at this place does not reach the store, if it is one of those, which
    /// are spread evenly.
    fn cut_off_at(&self, place: usize) -> Option<Duration> {
        let (share, at) = self.cut_off;
        let cut_off = |places: usize| (places as f64 * share + 1e-9).floor();
        (cut_off(place + 1) > cut_off(place)).then_some(at)
    }
}

/// The fleet of the process at `place`, if the processes of `run` share a store.
pub(super) fn of(run: &Arc<Run>, place: usize) -> Result<Option<Fleet>, ConfigError> {
    let Some(plan) = run.plan.store else { return Ok(None) };
    let store = Link {
        local: run.store.clone(),
        one_way: plan.round_trip / 2,
        run: run.clone(),
        outage: plan.outage,
        cut_off_at: plan.cut_off_at(place),
    };
    Fleet::new("simulation", store).map(Some)
}

/// Has the store lose its data at the times of the plan.
pub(super) async fn forget(run: Arc<Run>) {
    let Some(every) = run.plan.store.and_then(|store| store.forgets_every) else { return };
    loop {
        run.sleep_until(run.now() + every).await;
        run.store.forget();
    }
}

/// One process's connection to the store.
#[derive(Clone, Debug)]
struct Link {
    local: Local,
    one_way: Duration,
    run: Arc<Run>,
    outage: Option<(Duration, Duration)>,
    cut_off_at: Option<Duration>,
}

/// Takes back what a reply granted that is lost on its way.
struct Reply {
    local: Local,
    name: Name,
    call: GateCall,
    reply: Option<GateReply>,
}

type Answer<T> = Pin<Box<dyn Future<Output = Result<T, Unreachable>> + Send>>;

impl Link {
    async fn travel(&self) {
        self.run.sleep_until(self.run.now() + self.one_way).await;
    }
}

impl Store for Link {
    fn join(&self, fleet: &str) {
        self.local.join(fleet);
    }

    fn leave(&self, fleet: &str) {
        self.local.leave(fleet);
    }

    fn is_up(&self) -> bool {
        let now = self.run.now();
        let is_cut_off = self.cut_off_at.is_some_and(|at| now >= at);
        !is_cut_off && !self.outage.is_some_and(|(from, lasts)| now >= from && now < from + lasts)
    }

    fn replicas(&self, fleet: &str) -> u32 {
        self.local.replicas(fleet)
    }

    fn take(&self, name: &Name, from: Allowance, amount: u64) -> Answer<Taken> {
        self.local.take(name, from, amount)
    }

    fn correct(&self, name: &Name, window: u64, change: i64) {
        self.local.correct(name, window, change);
    }

    fn gate(&self, name: &Name, call: GateCall) -> Answer<GateReply> {
        let (link, name) = (self.clone(), name.clone());
        Box::pin(async move {
            link.travel().await;
            let reply = link.local.gate(&name, call.clone()).await?;
            let mut reply = Reply { local: link.local.clone(), name, call, reply: Some(reply) };
            link.travel().await;
            reply.reply.take().ok_or(Unreachable)
        })
    }

    fn tell_gate(&self, name: &Name, call: GateCall) {
        let (link, name) = (self.clone(), name.clone());
        tokio::spawn(async move {
            link.travel().await;
            link.local.tell_gate(&name, call);
        });
    }

    fn listen(&self, name: &Name, news: GateNews) {
        self.local.listen(name, news);
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(undo) = self.reply.take().and_then(|reply| self.call.undo(&reply)) {
            self.local.tell_gate(&self.name, undo);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_are_cut_off_are_as_many_as_the_share_says() {
        let plan = |share| StorePlan {
            cut_off: (share, Duration::from_secs(9)),
            ..StorePlan::new(Duration::ZERO)
        };
        let number =
            |share| (0..16).filter(|&place| plan(share).cut_off_at(place).is_some()).count();
        assert_eq!([0.0, 0.25, 0.5, 1.0].map(number), [0, 4, 8, 16]);
        let nine = Some(Duration::from_secs(9));
        assert_eq!([0, 1, 2, 3].map(|place| plan(0.5).cut_off_at(place)), [None, nine, None, nine]);
    }
}
