//! Learns from an answer what its resource holds.

use std::{fmt, sync::Arc};

use super::{
    Sticky,
    answer::{AnswerScan, Shown},
    binding::{LearnScope, seal},
};
use crate::{body::ResponseTap, clock, hash::fnv1a};

/// Watches an answer of one resource.
pub(super) struct IdLearner {
    sticky: Sticky,
    resource: Arc<str>,
    lesson: LearnScope,
    scan: AnswerScan,
    /// Hashes of what was learned: most ids of a stream come several times.
    learned: Vec<u64>,
}

impl IdLearner {
    pub(super) fn new(sticky: Sticky, resource: Arc<str>, lesson: LearnScope) -> Self {
        let most = if lesson.seals { RESPONSE } else { BEGINNING };
        Self { sticky, resource, lesson, scan: AnswerScan::new(most), learned: Vec::new() }
    }
}

impl ResponseTap for IdLearner {
    fn read(&mut self, piece: &[u8]) -> bool {
        let Self { sticky, resource, lesson, scan, learned } = self;
        scan.push(piece, |shown| {
            let id = match shown {
                Shown::Id(id) if lesson.ids => id,
                Shown::Seal(text) if lesson.seals => seal(text),
                Shown::Id(_) | Shown::Seal(_) => return,
            };
            let hash = fnv1a([id]);
            if !id.is_empty() && learned.len() < MOST && !learned.contains(&hash) {
                learned.push(hash);
                sticky.learn(id, resource, lesson.owner, clock::now());
            }
        });
        !self.scan.is_over()
    }

    fn end(&mut self) {}
}

impl fmt::Debug for IdLearner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdLearner").field("resource", &self.resource).finish_non_exhaustive()
    }
}

/// A chat completion has its id at its beginning.
const BEGINNING: usize = 64 << 10;
/// `response.created` and `response.in_progress` repeat the request, of which 61 KB have been seen,
/// and every item comes behind them.
const RESPONSE: usize = 1 << 20;
/// The most ids that are learned from one answer: a page of a list has 100 at most.
const MOST: usize = 128;
