//! What fails between the processes and their store, or in it: no request may fail for it.

use std::{net::SocketAddr, time::Duration};

use spillover_testing::{
    redis::Server,
    switch_proxy::{Line, SwitchProxy},
};
use tower_spillover::fleet::RedisStore;

use super::{Process, survive};
use crate::clock::{pause, until};

/// Two processes that share a gate and a budget; the first ones reach the store through `proxies`.
async fn processes(server: &Server, proxies: &[&SwitchProxy]) -> Vec<Process> {
    let urls = proxies.iter().map(|proxy| format!("redis://{}", proxy.addr));
    let urls: Vec<String> = urls.chain([server.url(), server.url()]).take(2).collect();
    let store = |url: &String| RedisStore::new(url).unwrap();
    let processes: Vec<_> = urls.iter().map(|url| Process::gated(store(url), 1_000_000)).collect();
    until(|| processes.iter().all(|it| it.fleet.is_up())).await;
    processes
}

async fn proxy(server: &Server) -> SwitchProxy {
    SwitchProxy::to(SocketAddr::from(([127, 0, 0, 1], server.port()))).await
}

#[tokio::test]
async fn a_store_that_is_busy_with_other_things_or_forgets_some_fails_no_request() {
    let Some(mut server) = Server::start(&["--enable-debug-command", "yes"]) else { return };
    let processes = &processes(&server, &[]).await[..];
    let server = &mut server;
    survive("DEBUG SLEEP", server, processes, &[1, 1], async |server| {
        server.send(&["DEBUG", "SLEEP", "0.6"]);
        pause(600).await;
    })
    .await;
    survive("eviction", server, processes, &[0, 0], async |server| {
        let set = |name, value| {
            assert_eq!(server.command(&["CONFIG", "SET", name, value]), "+OK");
        };
        set("maxmemory-policy", "allkeys-lru");
        set("maxmemory", "6mb");
        const FILL: &str = "for i = 1, 200 do redis.call('SET', ARGV[1] .. i, ARGV[2]) end";
        let other = "x".repeat(1_000);
        for batch in 0..50 {
            server.command(&["EVAL", FILL, "0", &format!("other-{batch}-"), &other]);
            pause(4).await;
        }
        let stats = server.command(&["INFO", "stats"]);
        let evicted = stats.lines().find_map(|line| line.strip_prefix("evicted_keys:"));
        assert!(evicted.unwrap().parse::<u32>().unwrap() > 1_000, "{stats}");
        set("maxmemory", "0");
    })
    .await;
}

#[tokio::test]
async fn a_line_to_the_store_that_is_bad_fails_no_request() {
    let Some(mut server) = Server::start(&[]) else { return };
    let proxy = proxy(&server).await;
    let processes = &processes(&server, &[&proxy, &proxy]).await[..];
    let server = &mut server;
    for (name, line) in [
        ("answers are lost", Line::LosesAnswers),
        ("200 ms", Line::IsSlow(Duration::from_millis(200))),
        // It could be connected within the time for that; requests could not use it.
        ("100 ms", Line::IsSlow(Duration::from_millis(100))),
        ("half-open", Line::IsDead),
    ] {
        survive(name, server, processes, &[1, 1], async |_| {
            proxy.becomes(line);
            pause(1_200).await;
            proxy.becomes(Line::Works);
        })
        .await;
    }
    survive("cut", server, processes, &[4, 4], async |_| {
        for number in [31, 7, 93, 58] {
            proxy.cut();
            until(|| processes.iter().all(|it| !it.fleet.is_up())).await;
            until(|| processes.iter().all(|it| it.fleet.is_up())).await;
            pause(number).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_process_that_is_cut_off_decides_alone_and_the_others_do_not_notice() {
    let Some(mut server) = Server::start(&[]) else { return };
    let proxy = proxy(&server).await;
    let processes = &processes(&server, &[&proxy]).await[..];
    survive("one is cut off", &mut server, processes, &[1, 0], async |_| {
        proxy.becomes(Line::IsDead);
        pause(800).await;
        assert!(!processes[0].fleet.is_up() && processes[1].fleet.is_up());
        proxy.becomes(Line::Works);
    })
    .await;
}
