//! Redirects, which would take the key of a resource along.

use http_body_util::Full;

use super::*;
use crate::{azure::backend_at, witness::Witness};

async fn elsewhere() -> Witness {
    Witness::start(|_| Response::new(Full::from("{}"))).await
}

async fn redirecting(elsewhere: &Witness) -> Witness {
    // Another name of the host makes it another origin.
    let location = format!("http://localhost:{}/", elsewhere.addr.port());
    Witness::start(move |_| {
        let redirect = Response::builder().status(307).header("location", &location);
        redirect.body(Full::default()).expect("a redirect")
    })
    .await
}

#[tokio::test]
async fn a_redirect_is_the_callers_and_no_key_goes_where_it_leads() {
    let elsewhere = elsewhere().await;
    let east = redirecting(&elsewhere).await;
    let pool = BackendPool::new([backend_at(EAST, east.addr)]).expect("a pool");
    // What the builder says of redirects is overruled.
    let follow = plain().redirect(reqwest::redirect::Policy::limited(5));
    let answer = send(&rotation(follow, pool, MoveOn::new()), chat()).await;
    assert_eq!(answer.status(), 307);
    assert_eq!(east.heads()[0].headers["api-key"], "key-of-east");
    assert_eq!(elsewhere.heads().len(), 0);
}

/// Why they are switched off.
#[tokio::test]
async fn reqwest_alone_would_send_the_key_to_another_host() {
    let elsewhere = elsewhere().await;
    let east = redirecting(&elsewhere).await;
    let request =
        plain().no_proxy().build().expect("a client").post(format!("http://{}/", east.addr));
    let request = request.header("api-key", "key-of-east").body(CHAT);
    soon(request.send()).await.expect("a response");
    assert_eq!(elsewhere.heads()[0].headers["api-key"], "key-of-east");
}
