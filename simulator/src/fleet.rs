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
}

/// The fleet of one process of `run`, if its processes share a store.
pub(super) fn of(run: &Arc<Run>) -> Result<Option<Fleet>, ConfigError> {
    let Some(StorePlan { round_trip, outage }) = run.plan.store else { return Ok(None) };
    let store =
        Link { local: run.store.clone(), one_way: round_trip / 2, run: run.clone(), outage };
    Fleet::new("simulation", store).map(Some)
}

/// One process's connection to the store.
#[derive(Clone, Debug)]
struct Link {
    local: Local,
    one_way: Duration,
    run: Arc<Run>,
    outage: Option<(Duration, Duration)>,
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
        !self.outage.is_some_and(|(from, lasts)| now >= from && now < from + lasts)
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
