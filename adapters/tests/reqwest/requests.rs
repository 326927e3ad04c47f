//! reqwest's own requests and responses above the layers.

use http_body_util::BodyExt;
use tower_spillover::Priority;
use tower_spillover_adapters::Call;

use super::*;
use crate::azure::{Azure, refused_for};

#[tokio::test]
async fn a_short_refusal_is_waited_out_and_a_long_one_spills() {
    let azure = Azure::open(&["east"]).await;
    let service = azure!(plain(), azure.pool([PTU]), azure.pool([EAST]));
    azure.script(PTU, [refused_for(40)]);
    let answer = soon(service.execute(post(CHAT))).await.expect("a response");
    assert_eq!(attempts(served(answer.extensions())), [(PTU, 429), (PTU, 200)]);
    let text = answer.text().await.expect("a whole body");
    assert!(text.contains("chat.completion"), "{text}");

    azure.script(PTU, [refused_for(30_000)]);
    let answer = soon(service.execute(post(CHAT))).await.expect("a response");
    assert_eq!(attempts(served(answer.extensions())), [(PTU, 429), (EAST, 200)]);
}

#[tokio::test]
async fn a_call_says_how_each_of_its_requests_was_served_and_limits_them() {
    let azure = Azure::open(&["east"]).await;
    let service = azure!(plain(), azure.pool([PTU]), azure.pool([EAST]));
    azure.script(PTU, [refused_for(40)]);
    let now = tower_spillover::MaxWait(std::time::Duration::ZERO);
    let call = Call::new().with(now).with(Priority::from("batch"));
    let (statuses, accounts) = call
        .run(async {
            let first = soon(service.execute(post(CHAT))).await.expect("a response").status();
            let second = soon(service.execute(post(CHAT))).await.expect("a response").status();
            [first.as_u16(), second.as_u16()]
        })
        .await;
    assert_eq!((statuses, accounts.len()), ([200, 200], 2));
    assert_eq!(attempts(&accounts[0]), [(PTU, 429), (EAST, 200)], "it must not wait");
}

#[tokio::test]
async fn a_request_that_has_no_address_of_http_is_an_error_of_reqwest() {
    let azure = Azure::open(&["east"]).await;
    let service = RequestService::new(client(plain()));
    let mut request = post(CHAT);
    *request.url_mut() = "data:text/plain,hello".parse().expect("a url");
    soon(service.execute(request)).await.expect_err("it cannot be sent");
    assert_eq!(azure.attempts(), 0);
}

#[tokio::test]
async fn a_stack_over_another_client_takes_requests_of_reqwest_too() {
    let azure = Azure::open(&["east"]).await;
    let hyper = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new());
    let stack = ServiceBuilder::new()
        .layer(RegionRotateLayer::new(azure.pool([EAST])))
        .map_err(tower::BoxError::from)
        .service(hyper.build_http());
    let answer = soon(RequestService::new(stack).execute(post(CHAT))).await.expect("a response");
    assert_eq!(attempts(served(answer.extensions())), [(EAST, 200)]);
    assert!(answer.text().await.expect("a whole body").contains("chat.completion"));
}

#[tokio::test]
async fn a_service_without_layers_gives_answers_as_they_are() {
    let azure = Azure::open(&["east"]).await;
    let service = RequestService::new(client(plain()));
    let mut request = post(CHAT);
    let url = format!("{}{CLASSIC}", azure.endpoint("east")).replace("whatever", "gpt-4o");
    *request.url_mut() = url.parse().expect("a url");
    request.headers_mut().insert("api-key", "key-of-east".parse().expect("a key"));
    let answer = soon(service.execute(request)).await.expect("a response");
    assert_eq!(answer.url().as_str(), url);
    assert!(answer.extensions().get::<Served>().is_none());
    let body = http::Response::<reqwest::Body>::from(answer).into_body();
    assert!(!soon(body.collect()).await.expect("a body").to_bytes().is_empty());
}
