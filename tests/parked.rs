//! Parks a hundred thousand requests at the gate, and fails when one takes more room.

use allocation_counter::{AllocationInfo, measure};
use spillover_testing::measured::lot::{BODY, Lot};

#[tokio::test(start_paused = true)]
async fn a_parked_request_takes_less_than_five_kibibytes_and_leaves_nothing_behind() {
    let lot = Lot::closed();
    let mut parked = Vec::with_capacity(MANY);
    let mut batches = Vec::with_capacity(MANY / BATCH);
    for _ in 0..MANY / BATCH {
        batches.push(measure(|| parked.extend((0..BATCH).map(|_| lot.park()))));
    }
    assert_eq!((lot.gate.waiting(), lot.asked()), (MANY, 1));

    let each = batches.iter().map(room).sum::<i64>() / MANY as i64;
    println!("{each} bytes for each parked request");
    assert!((BODY as i64..=MOST).contains(&each), "{each} bytes for each parked request");
    // Nothing that grows is copied: a place among 100,000 costs what one among 1,000 does.
    let (first, last) = (batches[0].bytes_total, batches[batches.len() - 1].bytes_total);
    assert!(last <= first + first / 100, "{first} bytes became {last}");

    let half = MANY / 2;
    let mut freed = vec![measure(|| parked.drain(..half).for_each(drop))];
    assert_eq!(lot.gate.waiting(), half);
    freed.push(measure(|| while parked.pop().is_some() {}));
    assert_eq!(lot.gate.waiting(), 0);
    let left = batches.iter().chain(&freed).map(|batch| batch.bytes_current).sum::<i64>();
    assert_eq!(left, 0, "bytes left over");
}

/// The room that what was allocated and not freed takes, with what the allocator adds.
fn room(batch: &AllocationInfo) -> i64 {
    batch.bytes_current + batch.count_current * HEADER
}

const MANY: usize = 100_000;
const BATCH: usize = 1_000;
const MOST: i64 = 5 << 10;
/// What glibc adds to an allocation: 8 bytes, and rounds up to 16.
const HEADER: i64 = 16;
