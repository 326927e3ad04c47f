//! Times the paths interleaved, so that a disturbance of one also disturbs its baseline.

use std::time::{Duration, Instant};

use spillover_testing::measured::{
    leaf::Leaf,
    paths::{PATHS, Path},
};

/// Prints the median time of every path, and its ratio to `tower::retry` with a handwritten policy
/// on the path whose first attempt is answered.
pub(crate) fn print() {
    let mut times = vec![Vec::with_capacity(ROUNDS); PATHS.len()];
    for _ in 0..ROUNDS {
        for (path, times) in PATHS.iter().zip(&mut times) {
            times.push(time(path, REQUESTS));
        }
    }
    let medians: Vec<f64> = times.into_iter().map(median).collect();
    let baseline = PATHS.iter().position(|path| path.name == "tower::retry");
    let baseline = medians[baseline.expect("the baseline")];
    for (path, median) in PATHS.iter().zip(&medians) {
        println!("{median:8.0} ns {:6.2} {}/{}", median / baseline, path.group, path.name);
    }
}

/// The time of so many requests on a new instance of `path`, after enough requests to reach every backend,
/// so that the cache contents of other paths do not matter. Not on one instance for as long as the bench
/// runs: the gate of a closed path lets a request through after a third of a second.
#[expect(clippy::disallowed_methods, reason = "a stopwatch")]
pub(crate) fn time(path: &Path, requests: u64) -> Duration {
    let mut send = (path.build)(Leaf::extended());
    (0..REQUESTS).for_each(|_| send());
    let start = Instant::now();
    (0..requests).for_each(|_| send());
    start.elapsed()
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e9 / REQUESTS as f64
}

const ROUNDS: usize = 100;
const REQUESTS: u64 = 2_000;
