//! Limits of one HTTP/2 connection.

use futures::future;
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::*;

#[tokio::test]
async fn what_is_beyond_the_streams_of_a_connection_was_not_processed() {
    let scene = Scene::with(Version::HTTP_2, |east| east.http2_streams(10)).await;
    let stream = TcpStream::connect(scene.serving.addr()).await.unwrap();
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_max_send_streams(100)
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    // All at once, before the server could announce its limit.
    let burst = (0..40)
        .map(|_| sender.clone().send_request(scene.request("std", "key-east", &chat(1, 1, false))));
    let answers = future::join_all(burst).await;
    let refused: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
    assert!((1..=30).contains(&refused.len()), "{} refused", refused.len());
    for error in &refused {
        assert!(format!("{error:?}").contains("REFUSED_STREAM"), "{error:?}");
    }
    let attempts = scene.emulator.stats().of("contoso-east", "std").attempts;
    assert_eq!(attempts as usize, 40 - refused.len());
}
