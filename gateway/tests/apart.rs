//! Clients of one gateway that store objects at the same resource are isolated from each other.

use std::{
    fs,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

use crate::{
    emulate,
    served::{Answer, Gateway, OPERATOR, TEAM_A, TEAM_B},
    witness::{Asked, Witness},
};

/// A resource that creates any object, has every id, and lists everything it created, two per page.
fn resource() -> Witness {
    let made: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
    Witness::new(move |asked| (200, JSON, answer(&mut made.lock().unwrap(), asked).to_string()))
}

fn answer(made: &mut Vec<(String, String)>, asked: &Asked) -> Value {
    let line: Vec<&str> = asked.head[0].split(' ').collect();
    let (path, query) = line[1].split_once('?').unwrap_or((line[1], ""));
    let kind = path.strip_prefix("/openai/v1/").unwrap();
    let is_kind = KINDS.iter().any(|(known, _)| *known == kind);
    match line[0] {
        "GET" if is_kind => {
            let ids = made.iter().filter(|(known, _)| known == kind).map(|(_, id)| id);
            let after = query.split('&').find_map(|pair| pair.strip_prefix("after="));
            let ids: Vec<_> = match after {
                Some(after) => ids.skip_while(|id| *id != after).skip(1).collect(),
                None => ids.collect(),
            };
            let data: Vec<_> = ids.iter().take(2).map(|id| json!({"id": id})).collect();
            let last = ids.iter().take(2).next_back();
            json!({"object": "list", "data": data, "has_more": ids.len() > 2,
                "first_id": ids.first(), "last_id": last})
        }
        "POST" if is_kind => {
            let id = format!("{}-{}", kind.replace('/', "-"), made.len());
            made.push((kind.to_owned(), id.clone()));
            json!({"id": id})
        }
        _ => json!({"object": "something"}),
    }
}

/// Every type of stored object, and the request that creates it.
const KINDS: &[(&str, &str)] = &[
    ("responses", r#"{"model":"m","input":"Hi"}"#),
    ("chat/completions", r#"{"model":"m","messages":[],"store":true}"#),
    ("conversations", "{}"),
    ("files", "{}"),
    ("uploads", "{}"),
    ("batches", "{}"),
    ("vector_stores", "{}"),
    ("containers", "{}"),
    ("assistants", r#"{"model":"m"}"#),
    ("threads", "{}"),
    ("evals", "{}"),
    ("fine_tuning/jobs", r#"{"model":"m"}"#),
    ("videos", r#"{"model":"m"}"#),
    ("skills", "{}"),
];

const JSON: &str = "content-type: application/json\r\n";
const CLIENTS: &str = "[clients.a]\nkeys = [\"env:TEAM_A_KEY\"]\n\
    [clients.b]\nkeys = [\"env:TEAM_B_KEY\"]\n[clients.c]\nkeys = [\"env:OPERATOR_KEY\"]\n";

fn config(azure: &Witness, rest: &str) -> String {
    format!(
        "listen.address = \"127.0.0.1:0\"\n{rest}\n[[models.m.standard]]\nname = \"east\"\n\
         endpoint = \"{}\"\nkey = \"env:AZURE_KEY\"\n",
        azure.endpoint()
    )
}

fn gateway(name: &str, azure: &Witness, rest: &str) -> Gateway {
    Gateway::start(&emulate::file(&format!("apart-{name}/g.toml"), &config(azure, rest)))
}

fn ask(gateway: &Gateway, key: (&str, &str), what: &str, body: &str) -> Answer {
    let (method, path) = what.split_once(' ').unwrap();
    gateway.ask(method, &format!("/openai/v1/{path}"), &[key], body)
}

fn made(gateway: &Gateway, key: (&str, &str), kind: &str) -> String {
    let (_, body) = KINDS.iter().find(|(known, _)| *known == kind).unwrap();
    let answer = ask(gateway, key, &format!("POST {kind}"), body);
    assert_eq!(answer.status(), 200, "{kind} {answer:?}");
    json_of(&answer)["id"].as_str().unwrap().to_owned()
}

fn json_of(answer: &Answer) -> Value {
    serde_json::from_str(answer.0.split_once("\r\n\r\n").unwrap().1).unwrap()
}

/// An answer, without the parts that name the request itself.
fn said(answer: &Answer) -> String {
    let is_own = |line: &&str| !line.starts_with("x-request-id: ") && !line.starts_with("date: ");
    answer.0.lines().filter(is_own).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_one_client_made_of_every_kind_is_not_there_for_another() {
    let azure = resource();
    let gateway = gateway("kinds", &azure, CLIENTS);
    for (kind, _) in KINDS {
        let id = made(&gateway, TEAM_A, kind);
        let whats = match *kind {
            "uploads" => vec![format!("POST uploads/{id}/cancel")],
            "batches" => vec![format!("GET batches/{id}"), format!("POST batches/{id}/cancel")],
            _ => vec![format!("GET {kind}/{id}"), format!("DELETE {kind}/{id}")],
        };
        for what in whats {
            let before = azure.asked().len();
            let refused = ask(&gateway, TEAM_B, &what, "");
            let absent = ask(&gateway, TEAM_B, &what.replace(&id, "no-such-thing"), "");
            assert_eq!(refused.status(), 404, "{what} {refused:?}");
            assert_eq!(said(&refused), said(&absent), "{what}");
            assert!(!refused.0.contains("x-spillover-"), "{refused:?}");
            assert_eq!(azure.asked().len(), before, "{what} went upstream");
            assert_eq!(ask(&gateway, TEAM_A, &what, "").status(), 200, "{what}");
            assert_eq!(azure.asked().len(), before + 1, "{what}");
        }
    }
}

#[test]
fn nothing_refers_to_what_another_client_made_however_it_is_written() {
    let azure = resource();
    let gateway = gateway("refers", &azure, CLIENTS);
    let [response, file, store, thread, assistant, container, conversation] = [
        "responses",
        "files",
        "vector_stores",
        "threads",
        "assistants",
        "containers",
        "conversations",
    ]
    .map(|kind| made(&gateway, TEAM_A, kind));
    let own = made(&gateway, TEAM_B, "threads");
    let many: Vec<_> = (0..100).map(|_| made(&gateway, TEAM_B, "files")).collect();
    let one = json!([&many[..], std::slice::from_ref(&file)].concat());
    let many = json!(many);
    let part =
        |text: &str| format!(r#"{{"model":"m","input":[{{"role":"user","content":[{text}]}}]}}"#);
    for (what, body, id) in [
        ("responses", format!(r#"{{"model":"m","previous_response_id":"{response}"}}"#), &response),
        (
            "responses",
            format!(r#"{{"model":"m","conversation":{{"id":"{conversation}"}}}}"#),
            &conversation,
        ),
        ("responses", part(&format!(r#"{{"type":"input_file","file_id":"{file}"}}"#)), &file),
        (
            "responses",
            format!(
                r#"{{"model":"m","tools":[{{"type":"file_search","vector_store_ids":["{store}"]}}]}}"#
            ),
            &store,
        ),
        (
            "responses",
            format!(
                r#"{{"model":"m","tools":[{{"type":"code_interpreter","container":"{container}"}}]}}"#
            ),
            &container,
        ),
        (
            "chat/completions",
            format!(
                r#"{{"model":"m","messages":[{{"content":[{{"type":"file","file":{{"file_id":"{file}"}}}}]}}]}}"#
            ),
            &file,
        ),
        ("vector_stores", format!(r#"{{"file_ids":{one}}}"#), &file),
        ("batches", format!(r#"{{"input_file_id":"{file}"}}"#), &file),
        ("fine_tuning/jobs", format!(r#"{{"model":"m","training_file":"{file}"}}"#), &file),
        ("threads/runs", format!(r#"{{"model":"m","assistant_id":"{assistant}"}}"#), &assistant),
        (
            &*format!("threads/{own}/messages"),
            format!(r#"{{"attachments":[{{"file_id":"{file}"}}]}}"#),
            &file,
        ),
        (&*format!("threads/{thread}/messages"), "{}".to_owned(), &thread),
        (
            "evals",
            format!(r#"{{"data_source":{{"source":{{"type":"file_id","id":"{file}"}}}}}}"#),
            &file,
        ),
    ] {
        let what = format!("POST {what}");
        let before = azure.asked().len();
        let refused = ask(&gateway, TEAM_B, &what, &body);
        let absent = ask(&gateway, TEAM_B, &what, &body.replace(id, "no-such-thing"));
        assert_eq!(refused.status(), 404, "{what} {body} {refused:?}");
        assert_eq!(said(&refused), said(&absent), "{body}");
        let escaped = body.replace("_id", "\\u005fid").replace('-', "\\u002d");
        if escaped != body {
            assert_eq!(ask(&gateway, TEAM_B, &what, &escaped).status(), 400, "{escaped}");
        }
        assert_eq!(azure.asked().len(), before, "{body}");
    }
    let encoded = response.replace('r', "%72");
    assert_eq!(ask(&gateway, TEAM_B, &format!("GET responses/{encoded}"), "").status(), 404);
    let fine = ask(&gateway, TEAM_B, "POST vector_stores", &format!(r#"{{"file_ids":{many}}}"#));
    assert_eq!(fine.status(), 200, "{fine:?}");
    let continued = format!(r#"{{"model":"m","previous_response_id":"{response}"}}"#);
    assert_eq!(ask(&gateway, TEAM_A, "POST responses", &continued).status(), 200);
    let talk = format!(r#"{{"model":"m","input":"{response}","metadata":{{"file_id":"{file}"}}}}"#);
    assert_eq!(ask(&gateway, TEAM_B, "POST responses", &talk).status(), 200, "it is only text");
}

#[test]
fn a_reference_behind_the_part_of_a_body_that_is_kept_is_seen() {
    let azure = resource();
    let rest = format!("limits.replay = \"1 KiB\"\n{CLIENTS}");
    let gateway = gateway("long", &azure, &rest);
    let response = made(&gateway, TEAM_A, "responses");
    let long = "x".repeat(200_000);
    let body = format!(r#"{{"model":"m","input":"{long}","previous_response_id":"{response}"}}"#);
    assert_eq!(ask(&gateway, TEAM_B, "POST responses", &body).status(), 404);
    assert_eq!(ask(&gateway, TEAM_A, "POST responses", &body).status(), 200);
}

#[test]
fn a_list_has_the_client_s_own_and_goes_on_to_the_last_of_them() {
    let azure = resource();
    let gateway = gateway("lists", &azure, CLIENTS);
    for (kind, _) in KINDS {
        if *kind == "uploads" || *kind == "threads" {
            continue;
        }
        let first = made(&gateway, TEAM_A, kind);
        let others: Vec<_> = (0..5).map(|_| made(&gateway, TEAM_B, kind)).collect();
        let last = made(&gateway, TEAM_A, kind);
        let mut found = Vec::new();
        let mut path = format!("GET {kind}?limit=2");
        loop {
            let answer = ask(&gateway, TEAM_A, &path, "");
            assert_eq!(answer.status(), 200, "{kind} {answer:?}");
            assert!(others.iter().all(|other| !answer.0.contains(other.as_str())), "{answer:?}");
            let page = json_of(&answer);
            let ids = page["data"].as_array().unwrap().iter().map(|item| item["id"].clone());
            found.extend(ids.map(|id| id.as_str().unwrap().to_owned()));
            if page["has_more"] != true {
                break;
            }
            path = format!("GET {kind}?limit=2&after={}", page["last_id"].as_str().unwrap());
        }
        assert_eq!(found, [first.clone(), last], "{kind}");
        let nothing = json_of(&ask(&gateway, OPERATOR, &format!("GET {kind}"), ""));
        assert_eq!((&nothing["data"], &nothing["has_more"]), (&json!([]), &json!(false)), "{kind}");
        let [of_another, of_nobody] = [&*first, "no-such-thing"]
            .map(|id| said(&ask(&gateway, TEAM_B, &format!("GET {kind}?after={id}"), "")));
        assert!(of_another.starts_with("HTTP/1.1 404") && of_another == of_nobody, "{of_another}");
    }
}

#[test]
fn one_client_s_ids_make_none_of_another_s_be_forgotten() {
    let azure = resource();
    let gateway = gateway("evicts", &azure, &format!("sticky.capacity = 3\n{CLIENTS}"));
    let file = made(&gateway, TEAM_A, "files");
    let mine: Vec<_> = (0..6).map(|_| made(&gateway, TEAM_B, "files")).collect();
    let status = |key, id: &str| ask(&gateway, key, &format!("GET files/{id}"), "").status();
    assert_eq!(status(TEAM_A, &file), 200);
    assert_eq!(status(TEAM_B, &mine[0]), 404, "its own it forgets");
    assert_eq!(status(TEAM_B, &mine[5]), 200);
}

#[test]
fn those_of_one_group_share_what_they_store() {
    let azure = resource();
    let clients = CLIENTS
        .replace("TEAM_A_KEY\"]", "TEAM_A_KEY\"]\ngroup = \"search\"")
        .replace("TEAM_B_KEY\"]", "TEAM_B_KEY\"]\ngroup = \"search\"");
    let gateway = gateway("group", &azure, &clients);
    let file = made(&gateway, TEAM_A, "files");
    for (key, status) in [(TEAM_A, 200), (TEAM_B, 200), (OPERATOR, 404)] {
        assert_eq!(ask(&gateway, key, &format!("GET files/{file}"), "").status(), status);
    }
    let list = json_of(&ask(&gateway, TEAM_B, "GET files", ""));
    assert_eq!(list["data"], json!([{"id": file}]));
}

#[test]
fn what_the_gateway_has_not_seen_is_served_where_that_is_set_and_belongs_to_who_asks_first() {
    let azure = resource();
    for (name, rest, expected) in [
        ("serve", format!("sticky.unknown = \"serve\"\n{CLIENTS}"), [200, 404, 404]),
        ("refuse", CLIENTS.to_owned(), [404, 404, 404]),
        ("one", "[clients.a]\nkeys = [\"env:TEAM_A_KEY\"]\n".to_owned(), [200, 401, 401]),
        ("none", "clients.open = true\nsticky.unknown = \"refuse\"\n".to_owned(), [404, 404, 404]),
    ] {
        let seen = Witness::new(|_| (200, JSON, r#"{"id":"resp_before"}"#.to_owned()));
        let gateway = gateway(name, &seen, &rest);
        let statuses = [TEAM_A, TEAM_B, OPERATOR]
            .map(|key| ask(&gateway, key, "GET responses/resp_before", "").status());
        assert_eq!(statuses, expected, "{name}");
    }
    let path = "apart-reload/g.toml";
    let text = config(&azure, CLIENTS);
    let gateway = Gateway::start(&emulate::file(path, &text));
    let file = made(&gateway, TEAM_A, "files");
    fs::write(emulate::file(path, &text), format!("limits.headers = 99\n{text}")).unwrap();
    gateway.eventually(|gateway| gateway.log().contains("configuration reloaded"));
    for (key, status) in [(TEAM_A, 200), (TEAM_B, 404)] {
        assert_eq!(ask(&gateway, key, &format!("GET files/{file}"), "").status(), status);
    }
}
