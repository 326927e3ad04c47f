//! Ids that several processes share through a fleet's store.

use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use tower::{Layer, ServiceExt};
use tower_spillover::{
    BackendPool, Fleet, RegionRotateLayer, ReplayLayer, StickTo, Sticky,
    fleet::{IdHolder, Local, OnStored, Operation, Store, Unreachable},
    gate::Mode,
    sticky::{Home, Ownership, StickyMatch},
};

use crate::{
    clock::{ms, pass, timed},
    leaf::{Answer, Leaf, account, request},
    sticking::{Pool, RESPONSES, backend, continuing, post, resources, respond, served_by},
    sticking_tiers,
};

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// A process of the fleet.
struct Process {
    pool: Pool,
    sticky: Sticky,
    fleet: Fleet,
}

impl Process {
    fn new(store: &Local) -> Self {
        Self::with(store.clone(), resources())
    }

    fn with(store: impl Store, leaf: Leaf) -> Self {
        let fleet = Fleet::new("prod", store).unwrap();
        let sticky = Sticky::new().fleet(&fleet, DAY).unwrap();
        Self { pool: Pool::new(&sticky, leaf), sticky, fleet }
    }

    /// Makes a response; returns its id, the answer and the backend.
    async fn makes(&self) -> (String, Value, String) {
        let (answer, by) = self.pool.made(respond(json!({"model": "m", "input": "hi"}))).await;
        (answer["id"].as_str().unwrap().to_owned(), answer, by)
    }

    /// Where a request goes, and why it is pinned.
    async fn sends(&self, request: Request<Full<Bytes>>) -> (String, Option<StickyMatch>) {
        let response = self.pool.ask(request).await;
        (served_by(&response), account(&response).held())
    }

    /// How often the store was asked.
    fn asked(&self) -> u64 {
        let stats = self.fleet.stats().operations;
        let recalls = stats.iter().find(|of| of.operation == Operation::Recall).unwrap();
        recalls.ok + recalls.timeout + recalls.error
    }
}

fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).body(Full::default()).unwrap()
}

const KNOWN: Option<StickyMatch> = Some(StickyMatch::ById);
const UNKNOWN: Option<StickyMatch> = Some(StickyMatch::Default);

#[tokio::test(start_paused = true)]
async fn what_one_process_learned_the_others_know_at_once() {
    let store = Local::new();
    let [first, second] = [(); 2].map(|()| Process::new(&store));
    for _ in 0..40 {
        let (id, answer, maker) = first.makes().await;
        let reasoning = &answer["output"][0];
        let encrypted = json!({"type": "reasoning", "summary": [],
            "encrypted_content": reasoning["encrypted_content"]});
        for request in [
            continuing(&id),
            get(&format!("{RESPONSES}/{id}")),
            respond(json!({"input": [{"type": "item_reference", "id": reasoning["id"]}]})),
            respond(json!({"input": [encrypted]})),
        ] {
            assert_eq!(second.sends(request).await, (maker.clone(), KNOWN));
        }
    }
    assert_eq!((first.asked(), second.asked()), (0, 3 * 40), "an id is asked for once");
    let stats = second.fleet.stats();
    assert_eq!((stats.ids_found, stats.ids_unknown), (3 * 40, 0));
    second.sends(continuing("resp_elsewhere")).await;
    assert_eq!(second.fleet.stats().ids_unknown, 1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_known_elsewhere_before_its_caller_has_read_it() {
    let store = Local::new();
    let [first, second] = [(); 2].map(|()| Process::new(&store));
    let stream = respond(json!({"model": "m", "input": "hi", "stream": true}));
    let mut response = first.pool.ask(stream).await;
    let maker = served_by(&response);
    let event = http_body_util::BodyExt::frame(response.body_mut()).await.unwrap().unwrap();
    let text = String::from_utf8(event.into_data().unwrap().to_vec()).unwrap();
    let (_, id) = text.split_once("\"id\":\"").unwrap();
    let (id, _) = id.split_once('"').unwrap();
    assert_eq!(second.sends(continuing(id)).await, (maker, KNOWN));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_is_on_its_way_is_found_at_a_later_look() {
    let store = Local::new();
    let [first, second] = [(); 2].map(|()| Process::new(&store));
    let (id, ..) = Process::new(&Local::new()).makes().await;
    let mut continued = Box::pin(second.sends(continuing(&id)));
    assert!(futures::poll!(&mut continued).is_pending());
    pass(ms(15)).await;
    let mut fetched = get(&format!("{RESPONSES}/{id}"));
    fetched.extensions_mut().insert(StickTo::from("west"));
    // Its resource has the id of the test's first response, too.
    let leaf = Leaf::new(move |_| Answer::ok().telling(json!({"id": id}).to_string()));
    let pool = Pool { layer: first.pool.layer.clone(), leaf };
    crate::leaf::text(pool.ask(fetched).await).await;
    assert_eq!(continued.await, ("west".to_owned(), KNOWN));
}

#[tokio::test(start_paused = true)]
async fn requests_that_need_no_id_do_not_call_the_store() {
    let store = Local::new();
    let process = Process::new(&store);
    let (id, ..) = process.makes().await;
    let mut named = continuing("resp_elsewhere");
    named.extensions_mut().insert(StickTo::from("west"));
    let mut by_header = continuing("resp_elsewhere");
    by_header.headers_mut().insert("x-spillover-backend", "west".parse().unwrap());
    let message = json!({"type": "message", "id": "msg_elsewhere", "role": "user", "content": []});
    for request in [
        request(),
        respond(json!({"model": "m", "input": "resp_elsewhere"})),
        respond(json!({"model": "m", "input": [message]})),
        post("/openai/v1/embeddings", &json!({"input": "file-1"})),
        post("/openai/v1/files", &json!({"purpose": "batch"})),
        get("/openai/v1/files"),
        continuing(&id),
        named,
        by_header,
    ] {
        process.pool.ask(request).await;
    }
    assert_eq!(process.asked(), 0);
    let (_, time) = timed(process.pool.ask(continuing("resp_elsewhere"))).await;
    assert_eq!((process.asked(), time), (4, ms(30)), "a write may be on its way");
    let (_, time) = timed(process.pool.ask(continuing("resp_elsewhere"))).await;
    assert_eq!((process.asked(), time), (5, ms(0)), "it was looked for in vain");
    let stats = process.fleet.stats();
    assert_eq!((stats.ids_found, stats.ids_unknown), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn all_ids_of_a_request_are_in_one_call_and_the_outermost_layer_makes_it() {
    let store = Local::new();
    let process = Process::new(&store);
    let files: Vec<_> =
        (0..90).map(|file| json!({"type": "input_file", "file_id": file.to_string()})).collect();
    let many = respond(json!({"input": [{"role": "user", "content": files}]}));
    process.pool.ask(many).await;
    assert_eq!(process.asked(), 4);
    let tiers = sticking_tiers::tiers(&process.sticky, Mode::Adaptive);
    let leaf = Leaf::new(|_| Answer::ok());
    let unknown = sticking_tiers::ask(&tiers, &leaf, continuing("resp_elsewhere")).await;
    assert_eq!((account(&unknown).held(), process.asked()), (UNKNOWN, 8));
    let streamed = ReplayLayer::new(1 << 16).layer(tiers.layer(leaf.clone()));
    streamed.oneshot(continuing("resp_elsewhere")).await.unwrap();
    assert_eq!(process.asked(), 9);
}

#[tokio::test(start_paused = true)]
async fn a_pinned_request_of_two_tiers_goes_where_another_process_made_what_it_continues() {
    let store = Local::new();
    let leaf = || {
        Leaf::new(|seen| match seen.host() {
            "ptu-only.example" => Answer::ok().telling(r#"{"id":"resp_1"}"#),
            _ => Answer::ok().telling(r#"{"id":"resp_2"}"#),
        })
    };
    let [first, second] = [(); 2].map(|()| Process::with(store.clone(), leaf()));
    let [made, asked] =
        [&first, &second].map(|it| sticking_tiers::tiers(&it.sticky, Mode::Adaptive));
    let mut request = respond(json!({"model": "m", "input": "hi"}));
    request.extensions_mut().insert(StickTo::from("ptu-only"));
    let response = sticking_tiers::ask(&made, &leaf(), request).await;
    crate::leaf::text(response).await;
    for _ in 0..20 {
        let response = sticking_tiers::ask(&asked, &leaf(), continuing("resp_1")).await;
        assert_eq!((&*served_by(&response), account(&response).held()), ("ptu-only", KNOWN));
    }
    assert_eq!(second.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_the_store_an_id_is_unknown_and_what_was_learned_meanwhile_follows_with_its_use() {
    let store = Local::new();
    let [first, second] = [(); 2].map(|()| Process::new(&store));
    store.set_up(false);
    let (id, _, maker) = first.makes().await;
    let (held, time) = timed(second.sends(continuing(&id))).await;
    assert_eq!((held.1, time), (UNKNOWN, ms(0)));
    store.set_up(true);
    assert_eq!(second.sends(continuing(&id)).await.1, UNKNOWN);
    assert_eq!(first.sends(continuing(&id)).await, (maker.clone(), KNOWN));
    assert_eq!(second.sends(continuing(&id)).await, (maker, KNOWN));
}

/// A store that keeps ids and never answers.
#[derive(Debug, Default)]
struct Hangs(Arc<AtomicUsize>);

impl Store for Hangs {
    fn keeps_ids(&self) -> bool {
        true
    }

    fn recall(
        &self,
        _: &str,
        _: Vec<Box<[u8]>>,
        _: Duration,
    ) -> BoxFuture<'static, Result<Vec<Option<IdHolder>>, Unreachable>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Box::pin(pending())
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_holds_a_request_for_the_timeout_and_one_that_is_dropped_sends_nothing()
{
    let asked = Arc::default();
    let process = Process::with(Hangs(Arc::clone(&asked)), resources());
    let (held, time) = timed(process.sends(continuing("resp_1"))).await;
    assert_eq!((held.1, time), (UNKNOWN, ms(50)));
    assert_eq!(process.pool.leaf.len(), 1);
    // Until then the store is not called again.
    pass(ms(50)).await;
    let mut dropped = Box::pin(process.sends(continuing("resp_1")));
    assert!(futures::poll!(&mut dropped).is_pending());
    drop(dropped);
    pass(ms(100)).await;
    assert_eq!((process.pool.leaf.len(), asked.load(Ordering::Relaxed)), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn what_a_resource_holds_that_is_not_configured_here_is_unknown() {
    let store = Local::new();
    let [first, second] = [(); 2].map(|()| Process::new(&store));
    let (id, maker) = loop {
        let (id, _, maker) = first.makes().await;
        if maker == "east" {
            break (id, maker);
        }
    };
    let pool = BackendPool::new(["west", "north"].map(backend)).unwrap();
    let layer = RegionRotateLayer::new(pool).sticky(second.sticky.clone());
    let response = layer.layer(resources()).oneshot(continuing(&id)).await.unwrap();
    assert_eq!(account(&response).held(), UNKNOWN);
    // Another model of the process has it.
    assert_eq!(second.sends(continuing(&id)).await, (maker, KNOWN));
}

#[tokio::test(start_paused = true)]
async fn an_id_is_kept_for_its_age_after_its_last_use_in_any_process() {
    let store = Local::new();
    let first = Process::new(&store);
    let (id, _, maker) = first.makes().await;
    let (unused, ..) = first.makes().await;
    for _ in 0..3 {
        pass(DAY - ms(1)).await;
        let other = Process::new(&store);
        assert_eq!(other.sends(continuing(&id)).await, (maker.clone(), KNOWN));
    }
    assert_eq!(Process::new(&store).sends(continuing(&unused)).await.1, UNKNOWN);
    // The process that made it remembers it for longer, and notifies the others again.
    assert_eq!(first.sends(continuing(&unused)).await.1, KNOWN);
    assert_eq!(Process::new(&store).sends(continuing(&unused)).await.1, KNOWN);
}

#[tokio::test(start_paused = true)]
async fn a_client_s_objects_are_another_s_in_no_process() {
    let store = Local::new();
    let [first, second, third] = [(); 3].map(|()| Process::new(&store));
    let [a, b] = ["a", "b"].map(|client| Home::of(client).owned());
    let of = |home: &Home, mut request: Request<Full<Bytes>>| {
        request.extensions_mut().insert(home.clone());
        request
    };
    let made = of(&a, respond(json!({"model": "m", "input": "hi"})));
    let (answer, maker) = first.pool.made(made).await;
    let id = answer["id"].as_str().unwrap();
    for (home, expected) in [(&b, Ownership::Others), (&a, Ownership::Own)] {
        let mut request = continuing(id);
        second.sticky.recall(home).request(&mut request).await;
        assert_eq!(second.sticky.ownership(&request, home), expected);
        second.sticky.recall(home).id(id).await;
        assert_eq!(second.sticky.ownership_of(id, home), expected);
    }
    // It does not route the other's requests either, and neither do lists that show it.
    assert_eq!(third.sends(of(&b, continuing(id))).await.1, UNKNOWN);
    assert_eq!(third.sends(of(&a, continuing(id))).await, (maker, KNOWN));
    assert_eq!(second.asked(), 1, "by then it was known here");
}

#[tokio::test(start_paused = true)]
async fn what_a_list_shows_has_no_owner_until_the_store_says_whose_it_is() {
    let store = Local::new();
    let listing = || {
        Leaf::new(|seen| match seen.uri.path() {
            "/openai/v1/files" => {
                Answer::ok().telling(r#"{"data":[{"id":"file-1"},{"id":"file-2"}]}"#)
            }
            _ => Answer::ok().telling(r#"{"id":"file-1"}"#),
        })
    };
    let [first, second] = [(); 2].map(|()| Process::with(store.clone(), listing()));
    let [a, b] = ["a", "b"].map(|client| Home::of(client).owned());
    let mut made = get("/openai/v1/files/file-1");
    made.extensions_mut().insert(a.clone());
    crate::leaf::text(first.pool.ask(made).await).await;
    let mut list = get("/openai/v1/files");
    list.extensions_mut().insert(b.clone());
    store.set_up(false);
    crate::leaf::text(second.pool.ask(list).await).await;
    assert_eq!(second.sticky.ownership_of("file-1", &b), Ownership::Unknown);
    store.set_up(true);
    second.sticky.recall(&b).id("file-1").id("file-2").await;
    let owners = [&a, &b].map(|home| second.sticky.ownership_of("file-1", home));
    assert_eq!(owners, [Ownership::Own, Ownership::Others]);
    assert_eq!(second.sticky.ownership_of("file-2", &b), Ownership::Unknown);
    // The list did not take it from its owner in the store either.
    let third = Process::new(&store);
    third.sticky.recall(&b).id("file-1").await;
    assert_eq!(third.sticky.ownership_of("file-1", &b), Ownership::Others);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_used_another_s_object_during_an_outage_does_not_keep_it() {
    let store = Local::new();
    let made = || Leaf::new(|_| Answer::ok().telling(r#"{"id":"file-1"}"#));
    let [first, second] = [(); 2].map(|()| Process::with(store.clone(), made()));
    let [a, b] = ["a", "b"].map(|client| Home::of(client).owned());
    let fetches = async |process: &Process, home: &Home| {
        let mut request = get("/openai/v1/files/file-1");
        request.extensions_mut().insert(home.clone());
        crate::leaf::text(process.pool.ask(request).await).await;
    };
    fetches(&first, &a).await;
    store.set_up(false);
    fetches(&second, &b).await;
    assert_eq!(second.sticky.ownership_of("file-1", &b), Ownership::Own, "as without a fleet");
    store.set_up(true);
    // Its use is written, and the store knows better.
    assert_eq!(second.sticky.ownership_of("file-1", &b), Ownership::Own);
    let owners = [&a, &b].map(|home| second.sticky.ownership_of("file-1", home));
    assert_eq!(owners, [Ownership::Own, Ownership::Others]);
}

#[tokio::test(start_paused = true)]
async fn layers_do_not_ask_again_for_what_was_recalled() {
    let store = Local::new();
    let process = Process::new(&store);
    let mut request = continuing("resp_elsewhere");
    process.sticky.recall(&Home::of("a")).request(&mut request).await;
    assert_eq!(process.sends(request).await.1, UNKNOWN);
    assert_eq!(process.asked(), 4);
    let mut many = process.sticky.recall(&Home::of("a"));
    for id in 0..512 {
        many = many.id(&id.to_string()).id("0");
    }
    assert!(!many.is_too_long());
    let mut many = many.id("one more");
    assert!(many.is_too_long());
    many.await;
    assert_eq!(process.asked(), 5, "that are no request's");
    let mut alone = Sticky::new().recall(&Home::of("a")).id("resp_elsewhere");
    assert!(!alone.is_too_long());
    alone.await;
}

/// What is written, by call.
#[derive(Clone, Debug, Default)]
struct Written(Arc<Mutex<Vec<usize>>>);

impl Store for Written {
    fn keeps_ids(&self) -> bool {
        true
    }

    fn remember(&self, _: &str, ids: Vec<(Box<[u8]>, IdHolder)>, _: Duration, on_stored: OnStored) {
        self.0.lock().unwrap().push(ids.len());
        let kept: Vec<IdHolder> = ids.into_iter().map(|(_, is)| is).collect();
        on_stored(&kept);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_one_write_and_an_id_in_use_is_written_once_an_hour() {
    let written = Written::default();
    let process = Process::with(written.clone(), resources());
    let taken = || std::mem::take(&mut *written.0.lock().unwrap());
    let (id, ..) = process.makes().await;
    assert_eq!(taken(), [4], "a response, two items, and what is encrypted");
    let fetched = || get(&format!("{RESPONSES}/{id}"));
    for _ in 0..9 {
        process.pool.ask(fetched()).await;
    }
    assert_eq!(taken(), [0; 0]);
    pass(Duration::from_secs(3_600)).await;
    for _ in 0..9 {
        process.pool.ask(fetched()).await;
    }
    assert_eq!(taken(), [1]);
    assert_eq!(process.pool.ask(request()).await.status(), StatusCode::OK);
}

#[test]
fn a_store_that_keeps_no_ids_is_refused_with_the_remedy() {
    #[derive(Debug)]
    struct Keeps;
    impl Store for Keeps {}
    let fleet = Fleet::new("prod", Keeps).unwrap();
    let error = Sticky::new().fleet(&fleet, DAY).unwrap_err().to_string();
    assert!(error.contains("fleet secret") && error.contains("RedisStore::secret"), "{error}");
}
