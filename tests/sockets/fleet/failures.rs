//! What fails between the processes and their store, or in it: no request may fail for it.

use std::{net::SocketAddr, time::Duration};

use spillover_testing::{
    redis::Server,
    switch_proxy::{Line, SwitchProxy},
};
use tower_spillover::fleet::RedisStore;

use super::{Process, SOME, survive};
use crate::clock::{Stopwatch, pause, until};

/// Two processes that share a gate and a budget; the first ones reach the store through `proxies`.
async fn processes(server: &Server, proxies: &[&SwitchProxy]) -> Vec<Process> {
    let urls = proxies.iter().map(|proxy| format!("redis://{}", proxy.addr));
    let urls: Vec<String> = urls.chain([server.url(), server.url()]).take(2).collect();
    let store = |url: &String| RedisStore::new(url).unwrap();
    let processes: Vec<_> = urls.iter().map(|url| Process::gated(store(url), 1_000_000)).collect();
    until(|| processes.iter().all(|it| it.fleet.is_up())).await;
    processes
}

#[tokio::test]
async fn a_process_whose_scripts_fail_decides_alone_and_the_others_do_not_notice() {
    let Some(mut server) = Server::start(&[]) else { return };
    server.allow("secret", &[]);
    let store = || RedisStore::new(&server.url()).unwrap();
    let processes = &[
        Process::gated(store().user("spillover").password("secret"), 1_000_000),
        Process::gated(store(), 1_000_000),
    ];
    until(|| processes.iter().all(|it| it.fleet.is_up())).await;
    let set = |server: &Server, rule: &str| {
        assert_eq!(server.command(&["ACL", "SETUSER", "spillover", rule]), "+OK");
    };
    survive("all scripts of one", &mut server, processes, &[1, 0], async |server| {
        set(server, "-evalsha");
        pause(600).await;
        assert!(!processes[0].fleet.is_up() && processes[1].fleet.is_up());
        set(server, "+evalsha");
    })
    .await;
    // What is tried at each connection works: a list that was made for another version, for example.
    survive("some scripts of one", &mut server, processes, &[SOME, 0], async |server| {
        set(server, "-hset");
        pause(1_500).await;
        set(server, "+hset");
    })
    .await;
    // It is out of use for longer each time.
    let changes = processes[0].changes.lock().unwrap().len();
    assert!((2..=26).contains(&changes), "{changes}");
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
    // So many that the last ones count as failing again and again.
    survive("cut", server, processes, &[12, 12], async |_| {
        let mut longest = Duration::ZERO;
        for (number, apart) in (1..).zip([31, 7, 93, 58, 12, 77, 3, 45, 21, 66, 9, 38]) {
            proxy.cut();
            let watch = Stopwatch::start();
            let is_back = |it: &Process| it.changes.lock().unwrap().len() == 2 * number;
            until(|| processes.iter().all(is_back)).await;
            longest = longest.max(watch.elapsed());
            pause(apart).await;
        }
        println!("used again after each cut within {longest:?}");
        // Half a second; the rest is for a loaded machine.
        assert!(longest < Duration::from_secs(1), "{longest:?}");
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
