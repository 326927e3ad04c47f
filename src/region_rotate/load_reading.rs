//! Caches the load of a request, which decides whether a refusal applies to it.

use std::cell::Cell;

use crate::cooldown::{Load, Traffic, Weight};

/// The load of a request, as far as it was needed. Valid for all of its attempts.
#[derive(Debug, Default)]
pub(super) struct LoadReading {
    traffic: Cell<Option<Traffic>>,
    weight: Cell<Option<Weight>>,
}

/// A request whose load is read once.
pub(super) struct ReadOnce<'a> {
    reading: &'a LoadReading,
    request: &'a dyn Load,
}

impl LoadReading {
    pub(super) fn of<'a>(&'a self, request: &'a dyn Load) -> ReadOnce<'a> {
        ReadOnce { reading: self, request }
    }
}

impl Load for ReadOnce<'_> {
    fn traffic(&self) -> Traffic {
        once(&self.reading.traffic, || self.request.traffic())
    }

    fn weight(&self) -> Weight {
        once(&self.reading.weight, || self.request.weight())
    }
}

fn once<T: Copy>(known: &Cell<Option<T>>, read: impl FnOnce() -> T) -> T {
    known.get().unwrap_or_else(|| {
        let value = read();
        known.set(Some(value));
        value
    })
}
