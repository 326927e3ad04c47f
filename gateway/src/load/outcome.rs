//! A run: the state that its requests share, and their results.

use std::{
    sync::atomic::AtomicUsize,
    time::{Duration, SystemTime},
};

use super::{args::LoadArgs, client::Client, exchange::Seen, tally::Tally, targets::Target};

/// Shared by all requests of a run.
pub(super) struct Run {
    pub(super) args: LoadArgs,
    pub(super) targets: Vec<Target>,
    pub(super) client: Client,
    pub(super) running: AtomicUsize,
}

/// One finished request.
pub(super) struct Item {
    pub(super) id: u64,
    pub(super) started: SystemTime,
    pub(super) target: usize,
    pub(super) seen: Seen,
}

/// The results of a run.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) tally: Tally,
    /// Kept only if requested.
    pub(super) items: Vec<Item>,
    pub(super) took: Duration,
    /// Whether a signal ended it.
    pub(super) interrupted: bool,
}
