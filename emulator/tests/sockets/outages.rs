//! Listeners that are closed for a time.

use spillover_emulator::Outage;

use super::*;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[expect(clippy::disallowed_methods, reason = "a socket test waits in real time")]
async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

#[tokio::test]
async fn a_restart_cuts_what_is_under_way_and_refuses_connections_until_it_is_over() {
    for version in VERSIONS {
        let restart = Outage::at(ms(150), ms(200));
        let scene = Scene::with(version, |east| east.outage(restart)).await;
        let under_way = scene.send("std", "key-east", &chat(1, 10_000, true)).await;
        pass(ms(200)).await;
        assert!(under_way.into_body().collect().await.is_err(), "{version:?}");
        let request = scene.request("std", "key-east", &chat(1, 1, false));
        let error = scene.client.request(request).await.unwrap_err();
        assert!(error.is_connect(), "{error:?}");
        assert_eq!(io_kind(&error), Some(io::ErrorKind::ConnectionRefused), "{error:?}");
        pass(ms(250)).await;
        let next = scene.send("std", "key-east", &chat(1, 1, false)).await;
        assert_eq!(next.status(), StatusCode::OK, "at the same address");
        assert_eq!(scene.emulator.stats().of("contoso-east", "std").abandoned, 1);
    }
}

#[tokio::test]
async fn a_share_of_the_connections_is_refused_and_none_is_cut() {
    let change = |east: Resource| east.outage(Outage::share(0.2)).closes_connections();
    let scene = Scene::with(Version::HTTP_11, change).await;
    let (mut refused, mut served) = (0, 0);
    for _ in 0..300 {
        let request = scene.request("ptu", "key-east", &chat(1, 1, false));
        match scene.client.request(request).await {
            Ok(response) => {
                assert_eq!(response.status(), StatusCode::OK);
                text(response).await;
                served += 1;
            }
            Err(error) => {
                assert!(error.is_connect(), "{error:?}");
                refused += 1;
            }
        }
        pass(ms(2)).await;
    }
    assert!((10..150).contains(&refused) && served > 100, "{refused} refused, {served} served");
}

#[tokio::test]
async fn a_connection_takes_one_request_where_it_is_closed_after_it() {
    let scene = Scene::with(Version::HTTP_11, Resource::closes_connections).await;
    let response = scene.send("ptu", "key-east", &chat(1, 1, false)).await;
    assert_eq!(response.headers()["connection"], "close");
}
