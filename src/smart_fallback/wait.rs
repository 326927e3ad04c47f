//! What a request waits for, holding nothing else.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::time::Sleep;

use crate::gate::{Admission, Waiter};

/// What a request waits for.
pub(super) enum PrimaryWait {
    /// The time at which the reference rule tries again.
    Sleep(Pin<Box<Sleep>>),
    /// Its turn at the gate.
    Turn(Box<Waiter>),
}

impl Future for PrimaryWait {
    /// What the gate says, if it was asked.
    type Output = Option<Admission>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Sleep(sleep) => sleep.as_mut().poll(cx).map(|()| None),
            Self::Turn(waiter) => Pin::new(&mut **waiter).poll(cx).map(Some),
        }
    }
}
