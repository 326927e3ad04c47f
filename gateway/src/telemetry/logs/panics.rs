//! Panics as log lines.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    panic,
};

/// Logs panics. The standard message is written by the panicking thread, which would wait for the
/// reader of standard error.
pub(crate) fn log() {
    panic::set_hook(Box::new(|info| {
        let backtrace = Backtrace::capture();
        let is_captured = backtrace.status() == BacktraceStatus::Captured;
        let payload = info.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        tracing::error!(
            target: "spillover::panic",
            thread = std::thread::current().name().unwrap_or_default(),
            place = info.location().map(tracing::field::display),
            message = text.unwrap_or("a panic"),
            backtrace = is_captured.then(|| tracing::field::display(&backtrace)),
        );
    }));
}
