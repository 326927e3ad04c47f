//! The bucket boundaries of the histograms, in seconds.

/// Waits for capacity. The default `max_wait` of 4 s and the maximum of ten minutes are boundaries,
/// so that a wait at its limit is visible.
pub(super) const WAIT: [f64; 16] =
    [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0];

/// Until a stream's first token, which users wait for, and until an answer's head, which follows
/// its last token if it is not streamed.
pub(super) const FIRST_TOKEN: [f64; 18] = [
    0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 15.0, 30.0, 60.0, 120.0,
    600.0,
];

/// Until the last byte: 32,768 tokens take ten minutes, and an embedding a few milliseconds.
pub(super) const WHOLE: [f64; 16] = [
    0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0,
];

/// Hints of backends: milliseconds from a PTU, up to a minute from Standard, and sometimes a day.
pub(super) const HINT: [f64; 15] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 600.0, 86_400.0];
