//! The cost of a request: decisions, layers and whole stacks, each beside its baseline.

mod decisions;
mod estimate;
mod inspect;
mod parked;
mod subscriber;
mod turns;

use std::{env, hint::black_box, time::Duration};

use criterion::Criterion;
use spillover_testing::measured::{
    leaf::Leaf,
    paths::{PATHS, Path, Send},
};

fn main() {
    if let Ok(path) = env::var("SPILLOVER_PATH") {
        if env::var_os("SPILLOVER_SUBSCRIBER").is_some() {
            subscriber::install();
        }
        return repeat(&path);
    }
    if env::var_os("SPILLOVER_PATHS").is_some() {
        PATHS.iter().for_each(|path| println!("{}", name_of(path)));
        return;
    }
    if env::var_os("SPILLOVER_TURNS").is_some() {
        return turns::print();
    }
    let mut criterion = Criterion::default()
        .sample_size(50)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_millis(1_500))
        .configure_from_args();
    decisions::bench(&mut criterion);
    estimate::bench(&mut criterion);
    inspect::bench(&mut criterion);
    for group in PATHS.chunk_by(|a, b| a.group == b.group) {
        bench(&mut criterion, group);
    }
    parked::bench(&mut criterion);
    criterion.final_summary();
}

fn bench(criterion: &mut Criterion, paths: &[Path]) {
    let mut group = criterion.benchmark_group(paths[0].group);
    for path in paths {
        group.bench_function(path.name, |bencher| {
            bencher.iter_custom(|requests| turns::time(path, requests));
        });
    }
    group.finish();
}

/// Sends [`TIMES`] requests on the path named `group/name`, for callgrind to count.
fn repeat(name: &str) {
    let found = PATHS.iter().find(|path| name_of(path) == name);
    let mut send = (found.expect("a path that is called so").build)(Leaf::extended());
    // Initialise everything that is created once.
    for _ in 0..TIMES {
        send();
    }
    counted(&mut send);
}

fn name_of(path: &Path) -> String {
    format!("{}/{}", path.group, path.name)
}

/// The counted part: `--toggle-collect='*counted*'`.
#[inline(never)]
fn counted(send: &mut Send) {
    for _ in 0..TIMES {
        black_box(&mut *send)();
    }
}

const TIMES: u32 = 1_000;
