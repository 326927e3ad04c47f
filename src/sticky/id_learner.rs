//! Learns the ids in an answer that its resource holds.

use std::fmt;

use super::{
    Sticky,
    answer::{AnswerScan, Shown},
    binding::{LearnScope, encrypted_prefix},
};
use crate::{backend::resource_hash, body::ResponseTap, clock, fleet::IdHolder};

/// Taps the answer of one resource.
pub(super) struct IdLearner {
    sticky: Sticky,
    holder: IdHolder,
    learn: LearnScope,
    scan: AnswerScan,
    /// Hashes of what was learned; most ids of a stream appear several times.
    learned: Vec<u64>,
}

impl IdLearner {
    pub(super) fn new(sticky: Sticky, resource: &str, learn: LearnScope) -> Self {
        let most = if learn.encrypted { RESPONSE_SCAN_BYTES } else { CHAT_SCAN_BYTES };
        let holder = IdHolder { resource: resource_hash(resource), owner: learn.owner };
        Self { sticky, holder, learn, scan: AnswerScan::new(most), learned: Vec::new() }
    }
}

impl ResponseTap for IdLearner {
    fn read(&mut self, piece: &[u8], is_last: bool) -> bool {
        let Self { sticky, holder, learn, scan, learned } = self;
        let mut to_write = Vec::new();
        scan.push(piece, is_last, |shown| {
            let id = match shown {
                Shown::Id(id) if learn.ids => id,
                Shown::Encrypted(text) if learn.encrypted => encrypted_prefix(text),
                Shown::Id(_) | Shown::Encrypted(_) => return,
            };
            if !id.is_empty() && learned.len() < MAX_IDS_PER_ANSWER {
                let is = sticky.learn_once(id, *holder, clock::now(), learned);
                to_write.extend(is.map(|is| (id.into(), is)));
            }
        });
        // Before the caller can refer to them.
        if let Some(store) = &sticky.store
            && !to_write.is_empty()
        {
            sticky.write(store, to_write);
        }
        !self.scan.is_over()
    }

    fn end(&mut self) {}
}

impl fmt::Debug for IdLearner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdLearner").field("learned", &self.learned.len()).finish_non_exhaustive()
    }
}

/// Bytes of a chat completion to read: its id comes first.
const CHAT_SCAN_BYTES: usize = 64 << 10;
/// Bytes of a response to read: `response.created` and `response.in_progress` repeat the request, of
/// which 61 KB were seen, and every item comes after them.
const RESPONSE_SCAN_BYTES: usize = 1 << 20;
/// Most ids learned from one answer: a page of a list has at most 100.
const MAX_IDS_PER_ANSWER: usize = 128;
