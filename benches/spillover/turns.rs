//! Times the paths interleaved, so that a disturbance of one also disturbs its baseline.

use std::time::{Duration, Instant};

use spillover_testing::measured::{
    leaf::Leaf,
    paths::{PATHS, Send},
};

/// Prints the median time of every path, and its ratio to `tower::retry` with a handwritten policy
/// on the path whose first attempt is answered.
pub(crate) fn print() {
    let mut sends: Vec<Send> = PATHS.iter().map(|path| (path.build)(Leaf::extended())).collect();
    let mut times = vec![Vec::with_capacity(ROUNDS); sends.len()];
    for _ in 0..ROUNDS {
        for (send, times) in sends.iter_mut().zip(&mut times) {
            times.push(time(send));
        }
    }
    let medians: Vec<f64> = times.into_iter().map(median).collect();
    let baseline = PATHS.iter().position(|path| path.name == "tower::retry");
    let baseline = medians[baseline.expect("the baseline")];
    for (path, median) in PATHS.iter().zip(&medians) {
        println!("{median:8.0} ns {:6.2} {}/{}", median / baseline, path.group, path.name);
    }
}

/// One turn: enough requests to reach every backend, after as many to warm up, so that the cache
/// contents of other paths do not matter.
#[expect(clippy::disallowed_methods, reason = "a stopwatch")]
fn time(send: &mut Send) -> Duration {
    (0..REQUESTS).for_each(|_| send());
    let start = Instant::now();
    (0..REQUESTS).for_each(|_| send());
    start.elapsed()
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e9 / f64::from(REQUESTS)
}

const ROUNDS: usize = 100;
const REQUESTS: u32 = 2_000;
