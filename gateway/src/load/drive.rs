//! Sends planned requests, prints progress every half second, and collects the results.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::mpsc::{self, UnboundedSender},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    clock,
    exchange::{self, Seen},
    outcome::{Item, Outcome, Run},
    plan::{Arrivals, Plan, Question},
    progress::Progress,
};

/// Runs a plan to its end, or until SIGINT.
pub(super) async fn drive(run: Arc<Run>, plan: Plan) -> Outcome {
    let progress = Progress::new(run.args.json, &plan);
    let begun = clock::now();
    let (items, mut finished) = mpsc::unbounded_channel();
    let mut senders = JoinSet::new();
    match plan {
        Plan::Closed { threads, items: most, think } => {
            let next = Arc::new(AtomicU64::new(0));
            for _ in 0..u64::from(threads).min(most) {
                let (run, next, items) = (Arc::clone(&run), Arc::clone(&next), items.clone());
                senders.spawn(converse(run, next, most, think, items));
            }
        }
        Plan::Open(arrivals) => {
            senders.spawn(arrive(Arc::clone(&run), arrivals, begun, items.clone()));
        }
    }
    drop(items);
    let mut outcome = Outcome::default();
    let mut ticks = interval(PROGRESS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut completed = 0;
    loop {
        tokio::select! {
            item = finished.recv() => match item {
                Some(item) => {
                    completed += 1;
                    outcome.tally.add(item.target, &item.seen);
                    if run.args.items_detail {
                        outcome.items.push(item);
                    }
                }
                None => break,
            },
            _ = ticks.tick() => {
                progress.show(run.running.load(Relaxed), completed, begun.elapsed());
            }
            _ = tokio::signal::ctrl_c() => {
                outcome.interrupted = true;
                break;
            }
        }
    }
    outcome.took = begun.elapsed();
    let running = if outcome.interrupted { run.running.load(Relaxed) } else { 0 };
    progress.show(running, completed, outcome.took);
    progress.end();
    outcome.items.sort_by_key(|item| item.id);
    outcome
}

/// One thread of a closed loop.
async fn converse(
    run: Arc<Run>,
    next: Arc<AtomicU64>,
    most: u64,
    think: Duration,
    items: UnboundedSender<Item>,
) {
    loop {
        let id = next.fetch_add(1, Relaxed);
        if id >= most {
            return;
        }
        send(Running::new(&run), id, None, clock::now(), items.clone()).await;
        if next.load(Relaxed) >= most {
            return;
        }
        if let Some(awake) = clock::now().checked_add(think) {
            clock::sleep_until(awake).await;
        }
    }
}

/// An open loop: does not wait for answers.
async fn arrive(run: Arc<Run>, arrivals: Arrivals, begun: Instant, items: UnboundedSender<Item>) {
    let mut open = JoinSet::new();
    for (id, arrival) in (0_u64..).zip(arrivals) {
        let Some(at) = begun.checked_add(arrival.at) else { break };
        clock::sleep_until(at).await;
        while open.try_join_next().is_some() {}
        if run.running.load(Relaxed) >= run.args.most_in_flight {
            let question = Question::new(&run.args, run.targets.len(), id, None);
            let seen = Seen::failed("not sent, too many in flight", Duration::ZERO);
            let item = Item { id, started: clock::wall(), target: question.target, seen };
            let _ = items.send(item);
            continue;
        }
        // Counted before the first poll, so that simultaneous arrivals see each other.
        let running = Running::new(&run);
        open.spawn(send(running, id, arrival.tokens, at, items.clone()));
    }
    while open.join_next().await.is_some() {}
}

async fn send(
    running: Running,
    id: u64,
    tokens: Option<(u64, u64)>,
    since: Instant,
    items: UnboundedSender<Item>,
) {
    let run = &*running.0;
    let question = Question::new(&run.args, run.targets.len(), id, tokens);
    let target = question.target;
    let started = clock::wall();
    let address = &run.targets[target];
    let seen = exchange::ask(&run.client, address, question, since, run.args.timeout).await;
    // After a signal there is no receiver.
    let _ = items.send(Item { id, started, target, seen });
}

/// Counts a request until dropped.
struct Running(Arc<Run>);

impl Running {
    fn new(run: &Arc<Run>) -> Self {
        run.running.fetch_add(1, Relaxed);
        Self(Arc::clone(run))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Relaxed);
    }
}

/// The reference's interval.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);
