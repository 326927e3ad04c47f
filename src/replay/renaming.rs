//! A body whose model is renamed while it passes.

use std::collections::VecDeque;

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::azure::ModelRename;

/// What goes on of a body that is still arriving, with another name for its model.
pub(super) struct Renaming {
    rename: ModelRename,
    ready: VecDeque<Frame<Bytes>>,
    /// Whether the length of what is to come is known, so that no other name may be in it.
    is_fixed: bool,
    end: Option<End>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Whole,
    /// It named a model once more, whose length had not been reckoned with.
    CutOff,
}

impl Renaming {
    /// Of a body that begins with `data`, and of which `rest` is to come. `None` when its length is
    /// known and the new one is not, because its model is further on.
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
            self.end = Some(End::CutOff);
        }
    }

    /// The body has ended, with or without trailers.
    pub(super) fn finish(&mut self, trailers: Option<Frame<Bytes>>) {
        let ready = &mut self.ready;
        self.rename.finish(|held| ready.push_back(Frame::data(held)));
        self.ready.extend(trailers);
        self.end = Some(End::Whole);
    }

    /// The next frame; `None` when more has to arrive first, or when it has ended.
    pub(super) fn next(&mut self) -> Option<Frame<Bytes>> {
        self.ready.pop_front()
    }

    pub(super) const fn end(&self) -> Option<End> {
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
