//! Timeouts of the client, of a request, and of what is below.

use std::time::Duration;

use super::*;
use crate::{
    azure::{Azure, backend_at, refused_for},
    clock::Stopwatch,
    raw::Raw,
};

#[tokio::test]
async fn a_silent_backend_is_left_after_the_clients_timeout_where_timeouts_move_on() {
    let azure = Azure::open(&["sweden"]).await;
    let silent = Raw::saying([""]).await;
    let pool = BackendPool::new([backend_at(EAST, silent.addr), azure.backend(SWEDEN)]).unwrap();
    pool.force_start(EAST).expect("a backend");
    let short = || plain().timeout(Duration::from_millis(200));

    let error = rotation(short(), pool.clone(), MoveOn::new()).oneshot(chat());
    let error = soon(error).await.expect_err("the caller's by default");
    assert!(error.is_timeout(), "{error:?}");

    let answer = send(&rotation(short(), pool, MoveOn::new().timeout()), chat()).await;
    assert_eq!(attempts(served(answer.extensions())), [(EAST, 0), (SWEDEN, 200)]);
}

#[tokio::test]
async fn the_timeout_of_a_request_bounds_all_its_attempts_together() {
    let silent = Raw::saying([""]).await;
    let pool = BackendPool::new(
        ["a/gpt-4o", "b/gpt-4o", "c/gpt-4o"].map(|name| backend_at(name, silent.addr)),
    )
    .unwrap();
    let rotate = RegionRotateLayer::new(pool).move_on(MoveOn::new().errors(error_kind).timeout());
    let service = RequestService::new(ServiceBuilder::new().layer(rotate).service(client(plain())));
    let mut request = post(CHAT);
    *request.timeout_mut() = Some(Duration::from_millis(300));
    let begun = Stopwatch::start();
    let error = soon(service.execute(request)).await.expect_err("nothing answers");
    assert!(error.is_timeout(), "{error:?}");
    let took = begun.elapsed();
    assert!(took < Duration::from_millis(800), "three attempts of 300 ms: {took:?}");
}

#[tokio::test]
async fn no_wait_goes_beyond_the_timeout_of_a_request() {
    let azure = Azure::open(&["east"]).await;
    azure.script(PTU, [refused_for(400)]);
    azure.script(EAST, [refused_for(400)]);
    let service = azure!(plain(), azure.pool([PTU]), azure.pool([EAST]));
    let mut request = post(CHAT);
    *request.timeout_mut() = Some(Duration::from_millis(150));
    let begun = Stopwatch::start();
    let answer = soon(service.execute(request)).await.expect("a refusal is a response");
    assert_eq!(answer.status().as_u16(), 429);
    assert!(begun.elapsed() < Duration::from_millis(390), "the hints are 400 ms");
}

#[tokio::test]
async fn the_timeout_of_a_request_cuts_off_an_answer_that_is_read() {
    let stalling = Raw::saying(["HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc"]).await;
    let pool = BackendPool::new([backend_at(EAST, stalling.addr)]).unwrap();
    let service = RequestService::new(
        ServiceBuilder::new().layer(RegionRotateLayer::new(pool)).service(client(plain())),
    );
    let mut request = post(CHAT);
    *request.timeout_mut() = Some(Duration::from_millis(200));
    let answer = soon(service.execute(request)).await.expect("its head came");
    let error = soon(answer.bytes()).await.expect_err("the rest never comes");
    assert!(error.is_timeout(), "{error:?}");
}
