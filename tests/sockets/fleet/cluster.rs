//! A fleet whose store is a Redis Cluster of three primaries with a replica each.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use http::Request;
use http_body_util::{BodyExt, Full};
use spillover_testing::{
    leaf::{Answer, Leaf},
    redis::{Cluster, Server},
};
use tower::{Layer, ServiceExt};
use tower_spillover::{
    Backend, BackendPool, Fleet, RegionRotateLayer, Sticky,
    fleet::RedisStore,
    sticky::{Home, Ownership},
};

use super::{Process, tokens::Tokens};
use crate::clock::{Stopwatch, pause, until};

async fn processes(cluster: &Cluster, number: usize, limit: u32) -> Vec<Process> {
    for server in &cluster.servers {
        server.allow("secret", &["+cluster|slots"]);
    }
    let urls = cluster.urls();
    let store = || {
        let store = RedisStore::of_cluster(urls.iter().map(|url| &**url)).unwrap();
        store.user("spillover").tokens(Tokens::of("secret"))
    };
    let processes: Vec<_> = (0..number).map(|_| Process::gated(store(), limit)).collect();
    until(|| processes.iter().all(|it| it.fleet.is_up())).await;
    processes
}

/// Sends requests from an `event` that takes the store out of use until it is used again; none may fail.
async fn survive(name: &str, processes: &[Process], event: impl FnOnce()) {
    processes.iter().for_each(|it| it.changes.lock().unwrap().clear());
    event();
    let (watch, mut longest) = (Stopwatch::start(), Duration::ZERO);
    let is_back = |it: &Process| it.changes.lock().unwrap().ends_with(&[false, true]);
    while !processes.iter().all(is_back) {
        for process in processes {
            let own = Stopwatch::start();
            assert!(process.call().await.0.is_success(), "{name}");
            longest = longest.max(own.elapsed());
        }
        assert!(watch.elapsed() < Duration::from_secs(30), "{name}: it is not used again");
        pause(10).await;
    }
    println!("{name}: longest {longest:?}, in use again after {:?}", watch.elapsed());
    // The fleet's timeout is 50 ms; the rest is for a loaded machine.
    assert!(longest < Duration::from_millis(500), "{name}: {longest:?}");
}

#[tokio::test]
async fn a_cluster_is_one_store_and_is_used_again_after_it_lost_a_primary() {
    let Some(mut cluster) = Cluster::start() else { return };
    let limited = processes(&cluster, 4, 100).await;
    let calls = (0..50).flat_map(|_| &limited).map(Process::call);
    let served = join_all(calls).await.iter().filter(|(status, _)| status.is_success()).count();
    assert_eq!(served, 100, "one budget for all");
    until(|| limited[0].fleet.replicas() == 4).await;
    drop(limited);
    says_that_it_is_a_cluster(&cluster).await;
    // The budget begins anew.
    cluster.servers[..3].iter().for_each(|server| drop(server.command(&["FLUSHALL"])));
    let processes = processes(&cluster, 2, 1_000_000).await;
    assert!(processes[0].call().await.0.is_success());
    let (owner, key) = cluster.find(BUDGET).expect("a budget");
    let next = (owner + 1) % 3;
    survive("a slot moved", &processes, || cluster.move_slot(&key, owner, next)).await;
    let (owner, _) = cluster.find(BUDGET).expect("a budget");
    assert_eq!(owner, next);
    survive("a primary was killed", &processes, || cluster.servers[owner].kill()).await;
    let roles = |server: &Server| server.command(&["INFO", "replication"]);
    let hung = (0..6).filter(|index| *index != owner).map(|index| &cluster.servers[index]);
    let mut hung = hung.filter(|server| roles(server).contains("connected_slaves:1"));
    let hung = hung.next().expect("a primary with a replica");
    survive("a primary hung", &processes, || hung.signal("STOP")).await;
    hung.signal("CONT");
}

#[tokio::test]
async fn what_one_process_learned_is_known_to_the_others_through_a_cluster() {
    let Some(cluster) = Cluster::start() else { return };
    cluster.servers.iter().for_each(|server| server.allow("secret", &["+cluster|slots"]));
    let urls = cluster.urls();
    let process = || {
        let store = RedisStore::of_cluster(urls.iter().map(|url| &**url)).unwrap();
        let store =
            store.user("spillover").password("secret").secret("a secret of the test").unwrap();
        let fleet = Fleet::new("prod", store).unwrap().timeout(Duration::from_secs(1));
        let sticky = Sticky::new().fleet(&fleet, 7 * DAY).unwrap();
        (fleet, sticky)
    };
    let [(fleet, sticky), (other, asked)] = [process(), process()];
    until(|| fleet.is_up() && other.is_up()).await;
    let backend = Backend::new("east", "https://east.example").unwrap().api_key("key");
    let pool = BackendPool::new([backend]).unwrap();
    let items: Vec<_> = (0..100).map(|item| format!(r#"{{"id":"msg_{item}"}}"#)).collect();
    let answer = format!(r#"{{"id":"resp_1","output":[{}]}}"#, items.join(","));
    let leaf = Leaf::new(move |_| Answer::ok().telling(answer.clone()));
    let stack = RegionRotateLayer::new(pool).sticky(sticky).layer(leaf);
    let [a, b] = ["a", "b"].map(|client| Home::of(client).owned());
    let mut request = Request::post("/openai/v1/responses").body(Full::<Bytes>::default()).unwrap();
    request.extensions_mut().insert(a.clone());
    let answer = stack.oneshot(request).await.unwrap();
    answer.into_body().collect().await.unwrap();
    let all = || (0..100).map(|item| format!("msg_{item}")).chain(["resp_1".to_owned()]);
    // The primaries share them.
    const COUNT: &str = "return #redis.call('KEYS', ARGV[1])";
    let ids = |server: &Server| server.command(&["EVAL", COUNT, "0", "sp1:{prod:i:*"]);
    until(|| cluster.servers[..3].iter().all(|server| ids(server) != ":0")).await;
    all().fold(asked.recall(&a), |recall, id| recall.id(&id)).await;
    for id in all() {
        let owners = [&a, &b].map(|home| asked.ownership_of(&id, home));
        assert_eq!(owners, [Ownership::Own, Ownership::Others], "{id}");
    }
    assert_eq!((other.stats().ids_found, other.stats().ids_unknown), (101, 0));
}

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// The operator learns what is wrong, wherever the keys are.
async fn says_that_it_is_a_cluster(cluster: &Cluster) {
    let store = |server: &Server| {
        let store = RedisStore::new(&server.url()).unwrap();
        Process::new(store.user("spillover").password("secret"), 1)
    };
    let alone: Vec<_> = cluster.servers[..3].iter().map(store).collect();
    let says = |it: &&Process| {
        let reason = it.store.status().and_then(|status| status.reason);
        reason.is_some_and(|reason| reason.contains("cluster = true"))
    };
    // One of the three has the key that a connection is tried with.
    until(|| alone.iter().filter(says).count() >= 2).await;
}

const BUDGET: &str = "sp1:{prod:b:*";
