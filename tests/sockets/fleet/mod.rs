//! A fleet over a real server: what several processes share, and what happens when the server fails.

mod cluster;
mod failures;
mod tokens;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::future::join_all;
use http::{Request, StatusCode};
use http_body_util::Full;
use spillover_testing::{
    leaf::{Answer, Leaf, Put, request},
    redis::{Sentinels, Server},
};
use tower::{Layer, ServiceExt};
use tower_spillover::{
    Backend, BackendPool, Fleet, Gate, RegionRotateLayer, SmartFallback, SmartFallbackLayer,
    fleet::RedisStore, smart_fallback::SpillBudget,
};

use self::tokens::Tokens;
use crate::clock::{Stopwatch, pause, until};

type Stack = SmartFallback<Leaf, Leaf>;

const MINUTE: Duration = Duration::from_secs(60);

/// What a process of the fleet has: its own connection, budget and layers.
struct Process {
    fleet: Fleet,
    store: RedisStore,
    stack: Stack,
    /// Each time that its store went up or down.
    changes: Arc<Mutex<Vec<bool>>>,
}

impl Process {
    fn new(store: RedisStore, limit: u32) -> Self {
        Self::with(store, limit, false)
    }

    /// One whose gate is the fleet's, too, so that each request calls the store twice.
    fn gated(store: RedisStore, limit: u32) -> Self {
        Self::with(store, limit, true)
    }

    fn with(store: RedisStore, limit: u32, is_gated: bool) -> Self {
        let changes = Arc::<Mutex<Vec<bool>>>::default();
        let noted = Arc::clone(&changes);
        let store = store.on_change(move |status| noted.lock().unwrap().push(status.is_up));
        let fleet = Fleet::new("prod", store.clone()).unwrap();
        let budget = SpillBudget::requests(limit, MINUTE).fleet(&fleet, "gpt-4o");
        let primary = Leaf::new(|_| Answer::refused(3_600_000));
        let layer = SmartFallbackLayer::new(Put(primary), Put(Leaf::new(|_| Answer::ok())));
        let layer = match is_gated {
            true => layer.gate(Gate::new().fleet(&fleet, "ptu")),
            false => layer,
        };
        Self { fleet, store, stack: layer.spill_budget(budget).layer(()), changes }
    }

    async fn call(&self) -> (StatusCode, Option<u64>) {
        let request: Request<Full<Bytes>> = request();
        let response = self.stack.clone().oneshot(request).await.expect("no error");
        let after = response.headers().get("retry-after-ms");
        (response.status(), after.map(|it| it.to_str().unwrap().parse().unwrap()))
    }
}

async fn processes(number: usize, server: &Server, limit: u32) -> Vec<Process> {
    let store = || RedisStore::new(&server.url()).unwrap();
    let processes: Vec<_> = (0..number).map(|_| Process::new(store(), limit)).collect();
    until(|| processes.iter().all(|it| it.fleet.is_up())).await;
    processes
}

#[tokio::test]
async fn four_processes_spill_a_hundred_of_five_hundred() {
    let Some(server) = Server::start(&[]) else { return };
    let processes = processes(4, &server, 100).await;
    let calls = (0..125).flat_map(|_| &processes).map(Process::call);
    let answers = join_all(calls).await;
    let served = answers.iter().filter(|(status, _)| status.is_success()).count();
    assert_eq!((served, answers.len()), (100, 500));
    let after: Vec<u64> = answers.iter().filter_map(|(_, after)| *after).collect();
    let (first, last) = (after.iter().min().unwrap(), after.iter().max().unwrap());
    assert!(after.len() == 400 && *first > 50_000 && last - first < 5_000, "{first} to {last}");
}

#[tokio::test]
async fn without_their_store_four_processes_spill_at_most_the_limit() {
    let Some(mut server) = Server::start(&[]) else { return };
    let processes = processes(4, &server, 100).await;
    until(|| processes.iter().any(|it| it.fleet.replicas() == 4)).await;
    // Each of them has counted the others by its next report.
    join_all(processes.iter().map(|process| async {
        until(|| process.fleet.replicas() == 4).await;
    }))
    .await;
    server.kill();
    let calls = (0..125).flat_map(|_| &processes).map(Process::call);
    let answers = join_all(calls).await;
    assert_eq!(answers.iter().filter(|(status, _)| status.is_success()).count(), 100);
}

#[tokio::test]
async fn a_process_that_ends_is_not_counted_any_more() {
    let Some(server) = Server::start(&[]) else { return };
    let mut processes = processes(3, &server, 100).await;
    until(|| processes[0].fleet.replicas() == 3).await;
    processes.truncate(1);
    until(|| processes[0].fleet.replicas() == 1).await;
}

#[tokio::test]
async fn an_amount_that_is_granted_too_late_is_returned() {
    let Some(server) = Server::start(&[]) else { return };
    let processes = processes(2, &server, 10).await;
    assert_eq!(processes[1].call().await.0, StatusCode::OK);
    server.command(&["CLIENT", "PAUSE", "200"]);
    // The process decides by its share of the nine that are left.
    assert_eq!(processes[1].call().await.0, StatusCode::OK);
    pause(400).await;
    until(|| processes.iter().all(|it| it.fleet.is_up())).await;
    let mut served = 0;
    while processes[0].call().await.0.is_success() {
        served += 1;
    }
    assert_eq!(served, 9, "the late grant was returned");
}

/// As many outages as there are.
const SOME: usize = usize::MAX;

/// What `event` does to 200 requests a second of two processes: none may fail. It takes the store of each
/// process out of use as often as `outages` says.
async fn survive(
    name: &str,
    server: &mut Server,
    processes: &[Process],
    outages: &[usize],
    event: impl AsyncFnOnce(&mut Server),
) {
    for process in processes {
        process.changes.lock().unwrap().clear();
    }
    let (is_over, longest) = (AtomicBool::new(false), Mutex::new(Duration::ZERO));
    let (calls, failures) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let load = async |process: &Process| {
        while !is_over.load(Ordering::Relaxed) {
            let batch = (0..10).map(|_| async {
                let watch = Stopwatch::start();
                let (status, _) = process.call().await;
                let mut longest = longest.lock().unwrap();
                *longest = watch.elapsed().max(*longest);
                calls.fetch_add(1, Ordering::Relaxed);
                failures.fetch_add(usize::from(!status.is_success()), Ordering::Relaxed);
            });
            join_all(batch).await;
            pause(100).await;
        }
    };
    let drive = async {
        pause(100).await;
        event(server).await;
        let watch = Stopwatch::start();
        until(|| processes.iter().all(|it| it.fleet.is_up())).await;
        let back = watch.elapsed();
        pause(200).await;
        is_over.store(true, Ordering::Relaxed);
        back
    };
    let (_, back) = futures::join!(join_all(processes.iter().map(load)), drive);
    let longest = *longest.lock().unwrap();
    println!("{name}: {calls:?} calls, longest {longest:?}, back after {back:?}");
    assert_eq!(failures.load(Ordering::Relaxed), 0, "{name}");
    // The fleet's timeout is 50 ms; the rest is for a loaded machine.
    assert!(longest < Duration::from_millis(500), "{name}: {longest:?}");
    assert!(back < Duration::from_secs(2), "{name}: {back:?}");
    for (process, outages) in processes.iter().zip(outages) {
        let changes = process.changes.lock().unwrap();
        let outages = if *outages == SOME { changes.len() / 2 } else { *outages };
        let expected = [false, true].repeat(outages);
        assert_eq!(*changes, expected, "{name}: one report per change");
    }
}

#[tokio::test]
async fn no_failure_of_the_store_fails_a_request() {
    let Some(mut server) = Server::start(&[]) else { return };
    let server = &mut server;
    server.allow("secret", &[]);
    let processes: Vec<_> = (0..2)
        .map(|_| {
            let store = RedisStore::new(&server.url()).unwrap();
            Process::new(store.user("spillover").password("secret"), 1_000_000)
        })
        .collect();
    until(|| processes.iter().all(|it| it.fleet.is_up())).await;
    let processes = &processes[..];
    survive("nothing", server, processes, &[0; 2], async |_| pause(100).await).await;
    survive("SCRIPT FLUSH", server, processes, &[0; 2], async |server| {
        assert_eq!(server.command(&["SCRIPT", "FLUSH"]), "+OK");
    })
    .await;
    survive("FLUSHALL", server, processes, &[0; 2], async |server| {
        assert_eq!(server.command(&["FLUSHALL"]), "+OK");
    })
    .await;
    survive("CLIENT PAUSE", server, processes, &[1; 2], async |server| {
        server.command(&["CLIENT", "PAUSE", "600"]);
        pause(600).await;
    })
    .await;
    survive("SIGSTOP", server, processes, &[1; 2], async |server| {
        server.signal("STOP");
        pause(600).await;
        server.signal("CONT");
    })
    .await;
    survive("kill -9", server, processes, &[1; 2], async |server| {
        server.kill();
        pause(400).await;
        server.restart();
        server.allow("secret", &[]);
    })
    .await;
    survive("maxmemory", server, processes, &[1; 2], async |server| {
        assert_eq!(server.command(&["CONFIG", "SET", "maxmemory", "1"]), "+OK");
        pause(400).await;
        server.command(&["CONFIG", "SET", "maxmemory", "0"]);
    })
    .await;
    survive("ACL removed", server, processes, &[1; 2], async |server| {
        assert_eq!(server.command(&["ACL", "SETUSER", "spillover", "-@all"]), "+OK");
        pause(400).await;
        server.allow("secret", &[]);
    })
    .await;
    let stats = &processes[0].fleet.stats().operations[0];
    println!("{stats:?}");
    assert!(stats.ok > 0 && stats.skipped > 0 && stats.timeout > 0 && stats.error > 0);
    assert!(processes[0].store.status().is_some_and(|status| status.is_up));
}

#[tokio::test]
async fn a_wrong_password_leaves_each_process_alone_and_is_reported_once() {
    let Some(server) = Server::start(&["--requirepass", "right"]) else { return };
    let store = RedisStore::new(&server.url()).unwrap().password("wrong");
    let process = Process::new(store, 3);
    until(|| !process.changes.lock().unwrap().is_empty()).await;
    assert_eq!(process.call().await.0, StatusCode::OK);
    pause(700).await;
    assert_eq!(*process.changes.lock().unwrap(), [false]);
    let reason = process.store.status().unwrap().reason.unwrap();
    assert!(reason.contains("WRONGPASS") || reason.contains("uthentication"), "{reason}");
    assert!(!reason.contains("wrong\""), "{reason}");
}

#[tokio::test]
async fn a_cooldown_reaches_other_processes_at_once_and_one_that_connects_later() {
    let Some(mut server) = Server::start(&[]) else { return };
    let process = |server: &Server, east: Answer| {
        let fleet = Fleet::new("prod", RedisStore::new(&server.url()).unwrap()).unwrap();
        let backend = |name: &str| {
            let host = format!("https://{name}.example");
            Backend::new(name, host).unwrap().deployment("gpt-4o").api_key("key")
        };
        let pool = BackendPool::new([backend("east"), backend("west").priority(2)]).unwrap();
        let pool = pool.fleet(&fleet, "gpt-4o", MINUTE);
        let leaf = Leaf::new(move |seen| match seen.host() {
            "east.example" => east.clone(),
            _ => Answer::ok(),
        });
        (fleet, pool.clone(), RegionRotateLayer::new(pool).layer(leaf))
    };
    let is_closed = |pool: &BackendPool| pool.cooldowns().any(|(_, left)| left.is_some());
    let (first, own, service) = process(&server, Answer::refused(20_000));
    let (second, pool, _) = process(&server, Answer::ok());
    until(|| first.is_up() && second.is_up()).await;
    // The second one has subscribed once its connection is in use.
    let watch = Stopwatch::start();
    service.clone().oneshot(request()).await.unwrap();
    until(|| is_closed(&pool)).await;
    println!("a cooldown was known after {:?}", watch.elapsed());
    let left = |pool: &BackendPool| pool.cooldowns().find_map(|(_, left)| left).unwrap();
    let differs = left(&own).abs_diff(left(&pool));
    assert!(differs < Duration::from_secs(1), "{differs:?}");
    let (third, later, _) = process(&server, Answer::ok());
    until(|| third.is_up()).await;
    until(|| is_closed(&later)).await;
    // A server without its data does not open what is closed.
    server.kill();
    until(|| !first.is_up()).await;
    server.restart();
    until(|| first.is_up() && second.is_up()).await;
    assert!(is_closed(&pool));
}

#[tokio::test]
async fn requests_that_the_primary_serves_do_not_call_the_store() {
    let Some(server) = Server::start(&[]) else { return };
    let store = RedisStore::new(&server.url()).unwrap();
    let fleet = Fleet::new("prod", store).unwrap();
    until(|| fleet.is_up()).await;
    let budget = SpillBudget::requests(100, MINUTE).fleet(&fleet, "gpt-4o");
    let tier = |name: &str| {
        let backend = Backend::new(name, format!("https://{name}.example")).unwrap();
        let pool = BackendPool::new([backend.api_key("key")]).unwrap();
        RegionRotateLayer::new(pool.fleet(&fleet, "gpt-4o", MINUTE))
    };
    let layer = SmartFallbackLayer::new(tier("ptu"), tier("standard")).spill_budget(budget);
    let service = layer.layer(Leaf::new(|_| Answer::ok()));
    server.command(&["CONFIG", "RESETSTAT"]);
    for _ in 0..20_000 {
        let response = service.clone().oneshot(request()).await.unwrap();
        assert!(response.status().is_success());
    }
    let stats = server.command(&["INFO", "commandstats"]);
    let of_scripts = |name: &str| {
        let line =
            stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{name}:calls=")));
        line.map_or(0, |line| line.split(',').next().unwrap().parse::<u32>().unwrap())
    };
    // Reports, and reads of what is closed.
    assert!(of_scripts("evalsha") <= 20, "{stats}");
    assert_eq!(of_scripts("publish") + of_scripts("hset"), 0, "{stats}");
    assert!(fleet.stats().operations.iter().all(|of| of.ok + of.timeout + of.error == 0));
}

#[tokio::test]
async fn a_store_with_sentinels_is_followed_to_its_new_master() {
    let Some(mut server) = Server::start(&[]) else { return };
    let port = server.port().to_string();
    let Some(replica) = Server::start(&["--replicaof", "127.0.0.1", &port]) else { return };
    // The sentinels know neither the user nor the token.
    [&server, &replica].iter().for_each(|server| server.allow("token-1", &[]));
    let sentinels = Sentinels::of("spillover", server.port());
    let urls = sentinels.urls();
    let store = RedisStore::of_sentinels("spillover", urls.iter().map(|url| &**url)).unwrap();
    let store = store.user("spillover").tokens(Tokens::of("token-1"));
    let process = Process::new(store, 1_000_000);
    until(|| process.fleet.is_up()).await;
    assert!(process.call().await.0.is_success());
    // The sentinels have to know the replica and one another.
    let knows = |server: &Server| server.command(&["INFO", "replication"]);
    until(|| knows(&server).contains("connected_slaves:1")).await;
    until(|| knows(&replica).contains("master_link_status:up")).await;
    pause(2_500).await;
    process.changes.lock().unwrap().clear();
    server.kill();
    let watch = Stopwatch::start();
    let mut longest = Duration::ZERO;
    for _ in 0..1_500 {
        let own = Stopwatch::start();
        assert!(process.call().await.0.is_success());
        longest = longest.max(own.elapsed());
        if process.fleet.is_up() && knows(&replica).contains("role:master") {
            break;
        }
        pause(10).await;
    }
    println!("failover: longest {longest:?}, in use again after {:?}", watch.elapsed());
    assert!(process.fleet.is_up());
    assert_eq!(*process.changes.lock().unwrap(), [false, true]);
}
