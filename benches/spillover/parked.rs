//! The cost of entering and leaving the gate's queue, for several queue lengths.

use criterion::{BatchSize, Criterion};
use spillover_testing::measured::lot::{Lot, Parked};
use tokio::runtime;

pub(crate) fn bench(criterion: &mut Criterion) {
    let runtime = runtime::Builder::new_current_thread().enable_time().build().expect("timers");
    let _entered = runtime.enter();
    let mut group = criterion.benchmark_group("parked");
    for waiting in [0, 1_000, 10_000, 100_000] {
        let lot = Lot::closed();
        let parked = fill(&lot, waiting);
        group.bench_function(format!("one more than {waiting}"), |bencher| {
            bencher.iter(|| drop(lot.park()));
        });
        drop(parked);
    }
    group.sample_size(10);
    for waiting in [1_000, 10_000, 100_000] {
        let lot = Lot::closed();
        group.bench_function(format!("all of {waiting} give up"), |bencher| {
            bencher.iter_batched(|| fill(&lot, waiting), drop, BatchSize::PerIteration);
        });
    }
    group.finish();
}

fn fill(lot: &Lot, waiting: usize) -> Vec<Parked> {
    let parked = (0..waiting).map(|_| lot.park()).collect();
    assert_eq!((lot.gate.waiting(), lot.asked()), (waiting, 1), "all wait");
    parked
}
