//! A body whose model is renamed while it passes through.

use std::collections::VecDeque;

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::azure::ModelRename;

/// The part of a streaming body that is forwarded, with another name for its model.
pub(super) struct Renaming {
    rename: ModelRename,
    ready: VecDeque<Frame<Bytes>>,
    /// Whether the remaining length is announced, so that no further name may be inserted.
    is_fixed: bool,
    end: Option<RenameEnd>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum RenameEnd {
    Whole,
    /// The body named a model again, which the announced length does not include.
    CutOff,
}

impl Renaming {
    /// Starts on a body that begins with `data`, with `rest` to come. `None` if its length is
    /// announced and the new one is unknown, because the model comes later.
    pub(super) fn begin(rename: ModelRename, data: &Bytes, rest: SizeHint) -> Option<Self> {
        let mut renaming = Self { rename, ready: VecDeque::new(), is_fixed: false, end: None };
        renaming.push(data);
        // What is added at the end has a length that no head can announce.
        renaming.is_fixed = rest.exact().is_some() && !renaming.rename.may_add();
        let is_known = renaming.rename.has_renamed() || renaming.rename.is_done();
        (is_known || !renaming.is_fixed || rest.exact() == Some(0)).then_some(renaming)
    }

    pub(super) fn push(&mut self, piece: &Bytes) {
        let (begun, ready) = (self.rename.begun(), &mut self.ready);
        self.rename.push(piece, |piece| ready.push_back(Frame::data(piece)));
        if self.is_fixed && self.rename.begun() > begun {
            self.ready.clear();
            self.end = Some(RenameEnd::CutOff);
        }
    }

    /// The body has ended, with or without trailers.
    pub(super) fn finish(&mut self, trailers: Option<Frame<Bytes>>) {
        let ready = &mut self.ready;
        self.rename.finish(|held| ready.push_back(Frame::data(held)));
        self.ready.extend(trailers);
        self.end = Some(RenameEnd::Whole);
    }

    /// The next frame; `None` if more has to arrive first, or the body has ended.
    pub(super) fn next(&mut self) -> Option<Frame<Bytes>> {
        self.ready.pop_front()
    }

    pub(super) const fn end(&self) -> Option<RenameEnd> {
        self.end
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    pub(super) fn size_hint(&self, rest: SizeHint) -> SizeHint {
        let ready = self.ready.iter().filter_map(Frame::data_ref);
        let ready: usize = ready.map(Bytes::len).sum();
        let ready = (ready + self.rename.held()) as u64;
        match rest.exact().filter(|_| self.is_fixed) {
            Some(rest) => SizeHint::with_exact(rest.saturating_add(ready)),
            None => {
                let mut hint = SizeHint::new();
                hint.set_lower(ready);
                hint
            }
        }
    }
}
