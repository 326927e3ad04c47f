//! Errors in the telemetry settings.

use std::{error::Error, fmt};

use crate::http_client::BoxError;

/// A telemetry setting that cannot be used, and why.
#[derive(Debug)]
pub(crate) struct TelemetryError {
    key: &'static str,
    reason: BoxError,
}

impl TelemetryError {
    pub(crate) fn new(key: &'static str, reason: impl Into<BoxError>) -> Self {
        Self { key, reason: reason.into() }
    }
}

impl fmt::Display for TelemetryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[telemetry] {}: {}", self.key, self.reason)
    }
}

impl Error for TelemetryError {}
