//! Where clients' files are stored, and what is created from them, in front of scripted resources
//! that store them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    emulate,
    served::{Answer, Gateway, TEAM_A as A, TEAM_B as B},
    witness::{Asked, Witness},
};

/// A resource that knows the files uploaded to it, and refuses on demand.
struct Resource {
    witness: Witness,
    refuses: Arc<AtomicBool>,
}

impl Resource {
    fn new(name: &'static str) -> Self {
        let (files, refuses) = (Mutex::new(Vec::new()), Arc::new(AtomicBool::new(false)));
        let refusing = Arc::clone(&refuses);
        let witness = Witness::new(move |asked| match refusing.load(Relaxed) {
            true => (429, "retry-after-ms: 30000\r\n", String::new()),
            false => answer(name, &mut files.lock().unwrap(), asked),
        });
        Self { witness, refuses }
    }

    fn refuse(&self, refuses: bool) {
        self.refuses.store(refuses, Relaxed);
    }

    fn posts(&self) -> usize {
        self.witness.asked().iter().filter(|asked| asked.head[0].starts_with("POST")).count()
    }
}

fn answer(name: &str, files: &mut Vec<String>, asked: &Asked) -> (u16, &'static str, String) {
    let line: Vec<&str> = asked.head[0].split(' ').collect();
    let body: Value = serde_json::from_slice(&asked.body).unwrap_or_default();
    let refers: Vec<&str> =
        body["file_ids"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if let Some(unknown) = refers.iter().find(|id| !files.iter().any(|file| file == *id)) {
        let message = format!("No such file: {unknown}; ownership verification failure");
        let error = json!({"error": {"code": "not_found", "message": message}});
        return (404, JSON, error.to_string());
    }
    let text = match (line[0], line[1]) {
        ("POST", "/openai/v1/files") => {
            let id = format!("file-{name}-{}", files.len());
            files.push(id.clone());
            json!({"id": id, "object": "file"})
        }
        ("GET", "/openai/v1/files") => {
            let list: Vec<_> = files.iter().map(|id| json!({"id": id, "object": "file"})).collect();
            json!({"object": "list", "data": list})
        }
        (_, path) => json!({"id": format!("made-{name}"), "object": path}),
    };
    (200, JSON, text.to_string())
}

/// Its models have these resources as Standard backends; `rest` precedes them.
fn gateway(name: &str, rest: &str, models: &[(&str, &[(&str, &Resource)])]) -> Gateway {
    Gateway::start(&emulate::file(&format!("homes-{name}/g.toml"), &config(rest, models)))
}

fn config(rest: &str, models: &[(&str, &[(&str, &Resource)])]) -> String {
    let mut text = format!("listen.address = \"127.0.0.1:0\"\n{rest}\n");
    for (model, backends) in models {
        for (backend, resource) in *backends {
            let endpoint = resource.witness.endpoint();
            text += &format!(
                "[[models.\"{model}\".standard]]\nname = \"{backend}\"\n\
                 endpoint = \"{endpoint}\"\nkey = \"env:AZURE_KEY\"\n"
            );
        }
    }
    text
}

const OPEN: &str = "clients.open = true";
const TWO_CLIENTS: &str = "sticky.unknown = \"serve\"\n[clients.a]\nkeys = [\"env:TEAM_A_KEY\"]\n\
     [clients.b]\nkeys = [\"env:TEAM_B_KEY\"]\n";
const JSON: &str = "content-type: application/json\r\n";

fn upload(gateway: &Gateway, key: (&str, &str)) -> Answer {
    gateway.ask("POST", "/openai/v1/files", &[key], "")
}

fn id(answer: &Answer) -> String {
    assert_eq!(answer.status(), 200, "{answer:?}");
    json_of(answer)["id"].as_str().unwrap().to_owned()
}

fn json_of(answer: &Answer) -> Value {
    serde_json::from_str(answer.0.split_once("\r\n\r\n").unwrap().1).unwrap()
}

fn backend(answer: &Answer) -> String {
    answer.header("x-spillover-backend").unwrap_or_else(|| panic!("{answer:?}")).to_owned()
}

#[test]
fn a_file_its_store_and_the_list_are_in_one_place_while_one_of_two_resources_refuses() {
    let (east, west) = (Resource::new("east"), Resource::new("west"));
    let all = [("east", &east), ("west", &west)];
    let gateway = gateway("store", OPEN, &[("gpt-4o", &all)]);
    let first = upload(&gateway, A);
    assert_eq!(first.header("x-spillover-sticky"), Some("home"), "{first:?}");
    let home = backend(&first);
    let (mine, other) = if home == "east" { (&east, &west) } else { (&west, &east) };
    // While the other one refuses requests that happen to go there.
    other.refuse(true);
    for _ in 0..5 {
        let answer = upload(&gateway, A);
        let store = json!({"file_ids": [id(&first), id(&answer)]}).to_string();
        let made = gateway.ask("POST", "/openai/v1/vector_stores", &[A], &store);
        assert_eq!((made.status(), backend(&made)), (200, home.clone()), "{made:?}");
        assert_eq!(made.header("x-spillover-sticky"), Some("known"), "{made:?}");
        let list = gateway.ask("GET", "/openai/v1/files", &[A], "");
        assert!(list.0.contains(&id(&answer)) && backend(&list) == home, "{list:?}");
        assert_eq!(list.header("x-spillover-sticky"), Some("home"), "{list:?}");
    }
    other.refuse(false);
    mine.refuse(true);
    let before = other.posts();
    for _ in 0..3 {
        let refused = upload(&gateway, A);
        assert_eq!(refused.status(), 429, "{refused:?}");
        assert_eq!(refused.header("x-spillover-sticky"), Some("home"), "{refused:?}");
        let hint: u64 = refused.header("retry-after-ms").unwrap().parse().unwrap();
        assert!((20_000..=30_000).contains(&hint), "{refused:?}");
    }
    assert_eq!(other.posts(), before, "nothing is created elsewhere");
    let answer = gateway.ask("POST", "/openai/v1/responses", &[A], r#"{"model":"gpt-4o"}"#);
    assert_eq!(answer.status(), 200, "what refers to nothing rotates: {answer:?}");
}

#[test]
fn clients_have_homes_of_their_own_and_a_reload_keeps_them() {
    let resources: Vec<_> = ["r0", "r1", "r2", "r3"].map(|name| (name, Resource::new(name))).into();
    let all: Vec<_> = resources.iter().map(|(name, resource)| (*name, resource)).collect();
    let clients: Vec<_> = (0..12).map(|n| format!("client-{n}")).collect();
    let mut settings = String::new();
    let mut keys = Vec::new();
    for client in &clients {
        let key = format!("a-long-key-of-{client}");
        settings += &format!("[clients.{client}]\nkeys = [\"sha256:{}\"]\n", sha256(&key));
        keys.push(key);
    }
    let path = emulate::file("homes-clients/g.toml", &config(&settings, &[("gpt-4o", &all)]));
    let gateway = Gateway::start(&path);
    let homes = |gateway: &Gateway| -> Vec<String> {
        keys.iter().map(|key| backend(&upload(gateway, ("api-key", key)))).collect()
    };
    let before = homes(&gateway);
    let mut counts = BTreeMap::<&str, u32>::new();
    before.iter().for_each(|home| *counts.entry(home).or_default() += 1);
    assert!(counts.len() > 1, "{counts:?}");
    assert_eq!(homes(&gateway), before);

    // The same after a reload with another resource, except for those that it takes over.
    let added = Resource::new("r4");
    let more: Vec<_> = all.iter().copied().chain([("r4", &added)]).collect();
    std::fs::write(&path, config(&settings, &[("gpt-4o", &more)])).unwrap();
    gateway.signal("HUP");
    gateway.eventually(|gateway| gateway.log().contains("configuration reloaded"));
    let after = homes(&gateway);
    let is_kept = |(was, is): (&String, &String)| was == is || is == "r4";
    assert!(before.iter().zip(&after).all(is_kept), "{before:?} {after:?}");
    // And in another process.
    let second = Gateway::start(&path);
    assert_eq!(homes(&second), after);
}

#[test]
fn the_default_backend_is_the_home_of_every_client_and_of_what_is_not_known() {
    let (east, west) = (Resource::new("east"), Resource::new("west"));
    let all = [("east", &east), ("west", &west)];
    for name in ["east", "west"] {
        let rest = format!(
            "{TWO_CLIENTS}[models.\"gpt-4o\"]\nsticky = {{ default_backend = \"{name}\" }}"
        );
        let gateway = gateway(&format!("default-{name}"), &rest, &[("gpt-4o", &all)]);
        for client in [A, B] {
            assert_eq!(backend(&upload(&gateway, client)), name);
            let unknown = gateway.ask("GET", "/openai/v1/files/file-unknown", &[client], "");
            assert_eq!(backend(&unknown), name);
            assert_eq!(unknown.header("x-spillover-sticky"), Some("unknown"));
        }
    }
}

#[test]
fn an_id_that_is_not_known_goes_to_the_client_s_home() {
    let (east, west) = (Resource::new("east"), Resource::new("west"));
    let all = [("east", &east), ("west", &west)];
    let gateway = gateway("unknown", TWO_CLIENTS, &[("gpt-4o", &all)]);
    for client in [A, B] {
        let home = backend(&upload(&gateway, client));
        for path in ["/openai/v1/files/file-x/content", "/openai/v1/responses/resp_x"] {
            let answer = gateway.ask("GET", path, &[client], "");
            assert_eq!(backend(&answer), home, "{answer:?}");
            assert_eq!(answer.header("x-spillover-sticky"), Some("unknown"), "{answer:?}");
        }
        let batch = r#"{"input_file_id":"file-x"}"#;
        let answer = gateway.ask("POST", "/openai/v1/batches", &[client], batch);
        assert_eq!(
            (backend(&answer), answer.header("x-spillover-sticky")),
            (home, Some("unknown"))
        );
    }
}

#[test]
fn a_file_without_a_model_is_where_all_of_the_client_s_models_can_use_it() {
    let [north, east, west] = ["north", "east", "west"].map(Resource::new);
    let models: [(&str, &[(&str, &Resource)]); 2] = [
        ("big", &[("big-north", &north), ("big-east", &east)]),
        ("small", &[("small-east", &east), ("small-west", &west)]),
    ];
    for (name, rest, expected) in [
        ("shared", TWO_CLIENTS.to_owned(), "big-east"),
        ("second", format!("default_model = \"small\"\n{TWO_CLIENTS}"), "small-east"),
    ] {
        let gateway = gateway(name, &rest, &models);
        for client in [A, B] {
            let file = upload(&gateway, client);
            assert_eq!(backend(&file), expected, "{file:?}");
            let file = id(&file);
            for (model, expected) in [("big", "big-east"), ("small", "small-east")] {
                let ask = json!({"model": model, "input": [{"role": "user", "content":
                    [{"type": "input_file", "file_id": file}]}]});
                let answer =
                    gateway.ask("POST", "/openai/v1/responses", &[client], &ask.to_string());
                assert_eq!((answer.status(), backend(&answer)), (200, expected.into()));
                let assistant = json!({"model": model}).to_string();
                let answer = gateway.ask("POST", "/openai/v1/assistants", &[client], &assistant);
                assert_eq!(backend(&answer), expected, "{answer:?}");
                assert_eq!(answer.header("x-spillover-sticky"), Some("home"));
            }
        }
    }
}

#[test]
fn models_that_share_nothing_need_a_default_and_a_client_of_one_model_needs_none() {
    let (east, west) = (Resource::new("east"), Resource::new("west"));
    let models: [(&str, &[(&str, &Resource)]); 2] =
        [("big", &[("east", &east)]), ("small", &[("west", &west)])];
    let clients = "[clients.a]\nkeys = [\"env:TEAM_A_KEY\"]\n\
                   [clients.b]\nkeys = [\"env:TEAM_B_KEY\"]\nmodels = [\"small\"]\n";
    let gateway = gateway("apart", clients, &models);
    let refused = upload(&gateway, A);
    assert_eq!(refused.status(), 404, "{refused:?}");
    assert!(refused.0.contains("default_model"), "{refused:?}");
    assert_eq!(backend(&upload(&gateway, B)), "west");
    // A request with a model has to name it.
    let unnamed = gateway.ask("POST", "/openai/v1/responses", &[B], r#"{"input":"hi"}"#);
    assert_eq!(unnamed.status(), 404, "{unnamed:?}");
}

#[test]
fn a_home_with_standard_alone_takes_uploads_although_the_ptu_is_full() {
    let full = crate::witness::refusing();
    let (west, quiet) = (Resource::new("west"), Resource::new("quiet"));
    let text = format!(
        "listen.address = \"127.0.0.1:0\"\nclients.open = true\n[models.\"gpt-4o\"]\n\
         sticky = {{ default_backend = \"west\" }}\n\
         ptu = [{{ name = \"ptu\", endpoint = \"{}\", key = \"env:AZURE_KEY\" }}]\n\
         standard = [{{ name = \"west\", endpoint = \"{}\", key = \"env:AZURE_KEY\" }},\
         {{ name = \"quiet\", endpoint = \"{}\", key = \"env:AZURE_KEY\" }}]\n",
        full.endpoint(),
        west.witness.endpoint(),
        quiet.witness.endpoint(),
    );
    let gateway = Gateway::start(&emulate::file("homes-tiers/g.toml", &text));
    assert_eq!(gateway.chat("gpt-4o", &[]).status(), 200);
    let asked = full.asked().len();
    for _ in 0..3 {
        let file = upload(&gateway, A);
        assert_eq!((file.status(), backend(&file)), (200, "west".into()), "{file:?}");
    }
    assert_eq!(full.asked().len(), asked);
}

/// In the format of `sha256sum`.
fn sha256(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}
