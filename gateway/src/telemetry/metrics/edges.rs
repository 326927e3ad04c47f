//! The edges of the histograms, in seconds.

/// Waits for capacity. A default `max_wait` is 4 s and no request may wait for more than ten minutes, so
/// that a wait at its limit has an edge of its own.
pub(super) const WAIT: [f64; 16] =
    [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0];

/// Until the first token of a stream, which people wait for, and until the head of an answer, which
/// comes after its last token where it is not streamed.
pub(super) const FIRST_TOKEN: [f64; 18] = [
    0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 15.0, 30.0, 60.0, 120.0,
    600.0,
];

/// Until the last byte: 32,768 tokens take ten minutes, and an embedding a few milliseconds.
pub(super) const WHOLE: [f64; 16] = [
    0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0,
];

/// What backends ask to wait: a PTU for milliseconds, Standard for up to a minute, and sometimes a day.
pub(super) const HINT: [f64; 15] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 600.0, 86_400.0];
