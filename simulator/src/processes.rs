//! The processes of a run: each has its own layers, and may have a successor.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::task::AbortHandle;

use super::{
    lives::{Life, Lives},
    network::{Network, Run},
    plan::Plan,
    stack::{Stack, Wiring},
};
use tower_spillover::ConfigError;

/// One stack of layers per place.
pub(super) struct Processes {
    run: Arc<Run>,
    wiring: Wiring,
    /// By place: the number of the current process, and its layers.
    stacks: Vec<(u32, Stack)>,
    calls: Arc<Calls>,
}

/// The calls in flight by place, with process and request, so that a crash can end them.
#[derive(Debug)]
struct Calls(Mutex<Vec<Vec<Held>>>);

type Held = (u32, usize, AbortHandle);

impl Processes {
    pub(super) fn begin(run: &Arc<Run>, wiring: Wiring) -> Result<Self, ConfigError> {
        let plan = &run.plan;
        let stack = |place| Ok((life(plan, place, run).number, wire(wiring, run, place)?));
        let stacks = (0..plan.processes).map(stack).collect::<Result<_, ConfigError>>()?;
        let calls = Calls(Mutex::new((0..plan.processes).map(|_| Vec::new()).collect()));
        Ok(Self { run: Arc::clone(run), wiring, stacks, calls: Arc::new(calls) })
    }

    /// Crashes processes at their scheduled times.
    pub(super) fn crash_at_their_times(&self, until: Duration) {
        let Some(lives) = self.run.plan.lives.filter(|_| self.run.plan.crashes()) else { return };
        for place in 0..self.stacks.len() {
            let (run, calls) = (Arc::clone(&self.run), Arc::clone(&self.calls));
            tokio::spawn(crash(lives, place, until, run, calls));
        }
    }

    /// The place and the layers of the process that handles a request.
    pub(super) fn take(&mut self, index: usize) -> Result<(Life, Stack), ConfigError> {
        let life = life(&self.run.plan, self.run.plan.process(index), &self.run);
        let (number, stack) = &mut self.stacks[life.place];
        if *number != life.number {
            (*number, *stack) = (life.number, wire(self.wiring, &self.run, life.place)?);
        }
        Ok((life, stack.clone()))
    }

    /// Registers a call that ends when its process crashes.
    pub(super) fn hold(&self, life: Life, index: usize, call: AbortHandle) {
        if self.run.plan.crashes() {
            self.calls.lock()[life.place].push((life.number, index, call));
        }
    }
}

impl Calls {
    fn lock(&self) -> MutexGuard<'_, Vec<Vec<Held>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wire(wiring: Wiring, run: &Arc<Run>, place: usize) -> Result<Stack, ConfigError> {
    wiring(&run.plan, Network::new(Arc::clone(run), place))
}

fn life(plan: &Plan, place: usize, run: &Run) -> Life {
    match plan.lives {
        Some(lives) => lives.at(run.now(), place, plan.processes),
        None => Life { place, number: 0 },
    }
}

async fn crash(lives: Lives, place: usize, until: Duration, run: Arc<Run>, calls: Arc<Calls>) {
    for (number, end) in lives.ends(place, run.plan.processes, until) {
        run.sleep_until(end).await;
        let mut lost = Vec::new();
        calls.lock()[place].retain(|(of, index, call)| {
            if *of == number {
                call.abort();
                lost.push(*index);
            }
            *of != number
        });
        for index in lost {
            run.lose(index);
        }
    }
}
