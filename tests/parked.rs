//! Parks a hundred thousand requests at the gate and remembers as many ids, and fails when one takes
//! more room.

use std::convert::Infallible;

use allocation_counter::{AllocationInfo, measure};
use bytes::Bytes;
use futures::FutureExt;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use spillover_testing::measured::lot::{BODY, Lot};
use tower::{Layer, ServiceExt, service_fn};
use tower_spillover::{Backend, BackendPool, RegionRotateLayer, Sticky};

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

#[test]
fn a_remembered_id_takes_less_than_160_bytes() {
    let backend = Backend::new("east", "https://east.example").unwrap().api_key("key");
    let sticky = Sticky::new().capacity(MANY);
    let layer = RegionRotateLayer::new(BackendPool::new([backend]).unwrap()).sticky(sticky.clone());
    let remember = |answer: usize| {
        let leaf = service_fn(move |_: Request<Full<Bytes>>| async move {
            let item = |index| format!(r#"{{"type":"message","id":"msg_{answer}_{index}"}}"#);
            let items: Vec<_> = (0..IDS_PER_ANSWER).map(item).collect();
            let answer = format!(r#"{{"object":"response","output":[{}]}}"#, items.join(","));
            let answer = Response::builder()
                .header("content-type", "application/json")
                .body(Full::<Bytes>::from(answer));
            Ok::<_, Infallible>(answer.unwrap())
        });
        let request = Request::post("/openai/v1/responses").body(Full::default()).unwrap();
        let answer = layer.layer(leaf).oneshot(request).now_or_never().unwrap().unwrap();
        answer.into_body().collect().now_or_never().unwrap().unwrap();
    };
    let all = measure(|| (0..MANY / IDS_PER_ANSWER).for_each(remember));
    assert_eq!(sticky.len(), MANY);
    let each = room(&all) / MANY as i64;
    println!("{each} bytes for each remembered id");
    assert!(each <= 160, "{each} bytes for each remembered id");
}

/// The room that what was allocated and not freed takes, with what the allocator adds.
fn room(batch: &AllocationInfo) -> i64 {
    batch.bytes_current + batch.count_current * HEADER
}

const MANY: usize = 100_000;
const BATCH: usize = 1_000;
const IDS_PER_ANSWER: usize = 100;
const MOST: i64 = 5 << 10;
/// What glibc adds to an allocation: 8 bytes, and rounds up to 16.
const HEADER: i64 = 16;
