//! Successes as server-sent events, one token per event, generated as they are read.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Sleep;

use crate::{
    EmulatorError,
    answer::{Success, events},
    body::Cut,
    clock::Clock,
    in_flight::InFlight,
};

/// The events of one answer: opening events, one per token, closing events.
#[derive(Debug)]
pub(crate) struct EventStream {
    success: Success,
    /// Taken when the last token has been sent, or when the stream is cut.
    in_flight: Option<InFlight>,
    sleep: Option<Pin<Box<Sleep>>>,
    /// The silence after which to send a keep-alive event, and when the silence began.
    keepalive: Option<(Duration, Duration)>,
    step: Step,
    sent: usize,
    cut: Option<(usize, Cut)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Open(u64),
    Token(u64),
    Close(u64),
    Over,
}

impl EventStream {
    /// `cut` breaks the stream after that many events.
    pub(crate) fn new(
        success: Success,
        in_flight: InFlight,
        keepalive: Option<Duration>,
        cut: Option<(usize, Cut)>,
    ) -> Self {
        let keepalive = keepalive.map(|silence| (silence, in_flight.clock().now()));
        let (in_flight, sleep, step) = (Some(in_flight), None, Step::Open(0));
        Self { success, in_flight, sleep, keepalive, step, sent: 0, cut }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.step == Step::Over
    }

    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, EmulatorError>>> {
        if self.step == Step::Over {
            return Poll::Ready(None);
        }
        if let Some((events, cut)) = &mut self.cut
            && *events == self.sent
        {
            if let Some(in_flight) = self.in_flight.take() {
                in_flight.abandon(self.step.tokens());
            }
            let error = ready!(cut.poll(cx));
            self.step = Step::Over;
            return Poll::Ready(Some(Err(error)));
        }
        loop {
            if let Some(sleep) = &mut self.sleep {
                ready!(sleep.as_mut().poll(cx));
                self.sleep = None;
                if let Some(event) = self.keep_alive() {
                    return Poll::Ready(Some(Ok(event.into())));
                }
            }
            if self.sleep_until_due() {
                continue;
            }
            self.settle_when_generated();
            let (event, next) = self.render();
            self.step = next;
            if let Some(event) = event {
                self.sent = self.sent.saturating_add(1);
                self.restart_silence();
                return Poll::Ready(Some(Ok(event.into())));
            }
            if next == Step::Over {
                return Poll::Ready(None);
            }
        }
    }

    /// Registers a wake-up if the next token is not due yet.
    fn sleep_until_due(&mut self) -> bool {
        let Some((clock, due)) = self.due() else { return false };
        let silent_until = self.keepalive.map(|(silence, since)| since.saturating_add(silence));
        self.sleep = Some(clock.sleep_until(silent_until.map_or(due, |until| until.min(due))));
        true
    }

    /// When the next token is due, if it is in the future.
    fn due(&self) -> Option<(Clock, Duration)> {
        let (Step::Token(index), Some(in_flight)) = (self.step, &self.in_flight) else {
            return None;
        };
        let due = in_flight.due(index.saturating_add(1));
        (due > in_flight.clock().now()).then(|| (in_flight.clock(), due))
    }

    /// The keep-alive event, if the silence has lasted long enough.
    fn keep_alive(&mut self) -> Option<String> {
        let (clock, _) = self.due()?;
        let (silence, since) = self.keepalive?;
        if clock.now() < since.saturating_add(silence) {
            return None;
        }
        self.restart_silence();
        let Step::Token(at) = self.step else { return None };
        let event = events::keepalive(&self.success, at);
        self.success.keepalives += 1;
        Some(event)
    }

    fn restart_silence(&mut self) {
        if let (Some((_, since)), Some(in_flight)) = (&mut self.keepalive, &self.in_flight) {
            *since = in_flight.clock().now();
        }
    }

    fn settle_when_generated(&mut self) {
        let generated = matches!(self.step, Step::Close(_) | Step::Over)
            || self.step == Step::Token(self.success.cost.completion.saturating_sub(1));
        if generated && let Some(in_flight) = self.in_flight.take() {
            in_flight.finish();
        }
    }

    /// The event of this step, if any, and the next step.
    fn render(&self) -> (Option<String>, Step) {
        let success = &self.success;
        match self.step {
            Step::Open(at) => match events::open(success, at) {
                Some(event) => (Some(event), Step::Open(at + 1)),
                None => (None, Step::Token(0)),
            },
            Step::Token(at) if at < success.cost.completion => {
                (Some(events::token(success, at)), Step::Token(at + 1))
            }
            Step::Token(_) => (None, Step::Close(0)),
            Step::Close(at) => match events::close(success, at) {
                Some(event) => (Some(event), Step::Close(at + 1)),
                None => (None, Step::Over),
            },
            Step::Over => (None, Step::Over),
        }
    }
}

impl Step {
    /// How many tokens precede this step; after the tokens, all of them.
    const fn tokens(self) -> u64 {
        match self {
            Self::Open(_) => 0,
            Self::Token(at) => at,
            Self::Close(_) | Self::Over => u64::MAX,
        }
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        if let Some(in_flight) = self.in_flight.take() {
            in_flight.abandon(self.step.tokens());
        }
    }
}
