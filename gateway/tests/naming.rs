//! The model name that each backend receives, in bodies of every length and shape.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    emulate,
    served::Gateway,
    steering::{CHAT, JSON},
    witness::{Asked, Witness, serving},
};

/// `east` uses another name, `sweden` uses its model's name, and `third` serves another model.
struct Scene {
    gateway: Gateway,
    east: Witness,
    sweden: Witness,
    third: Witness,
}

impl Scene {
    fn new(name: &str, east: Witness, more: &str) -> Self {
        let (sweden, third) = (serving(), serving());
        let text = format!(
            "listen.address = \"127.0.0.1:0\"\n{more}\n\
             [models.\"gpt-4o\"]\naliases = [\"gpt-alias\"]\nstandard = [\n\
             {{ name = \"east\", endpoint = \"{}\", key = \"env:AZURE_KEY\", deployment = \"east-name\" }},\n\
             {{ name = \"sweden\", endpoint = \"{}\", key = \"env:AZURE_KEY\", priority = 2 }}]\n\
             [models.other]\nstandard = [\n\
             {{ name = \"third\", endpoint = \"{}\", key = \"env:AZURE_KEY\", deployment = \"third-name\" }}]\n",
            east.endpoint(),
            sweden.endpoint(),
            third.endpoint()
        );
        let gateway = Gateway::start(&emulate::file(&format!("naming-{name}/g.toml"), &text));
        Self { gateway, east, sweden, third }
    }

    fn send(&self, upload: &Upload<'_>) -> String {
        upload.send(&self.gateway, |stream| stream.write_all(&upload.framed()))
    }

    /// What backends received since the last call.
    fn asked(&self, known: &mut [usize; 3]) -> Vec<(&'static str, Asked)> {
        let witnesses = [("east", &self.east), ("sweden", &self.sweden), ("third", &self.third)];
        let mut all = Vec::new();
        for ((name, witness), known) in witnesses.into_iter().zip(known) {
            let asked = witness.asked();
            all.extend(asked[*known..].iter().map(|asked| (name, asked.clone())));
            *known = asked.len();
        }
        all.sort_by_key(|(_, asked)| asked.at);
        all
    }
}

struct Upload<'a> {
    path: &'a str,
    kind: &'a str,
    /// Additional header lines.
    headers: &'a str,
    is_chunked: bool,
    body: Vec<u8>,
}

impl Upload<'_> {
    fn json(body: impl Into<Vec<u8>>) -> Self {
        let (path, kind) = ("/openai/v1/chat/completions", "application/json");
        Self { path, kind, headers: "", is_chunked: false, body: body.into() }
    }

    fn head(&self) -> String {
        let framing = match self.is_chunked {
            true => "transfer-encoding: chunked".to_owned(),
            false => format!("content-length: {}", self.body.len()),
        };
        format!(
            "POST {} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\ncontent-type: {}\r\n{}{framing}\r\n\r\n",
            self.path, self.kind, self.headers
        )
    }

    /// The body in wire format.
    fn framed(&self) -> Vec<u8> {
        if !self.is_chunked {
            return self.body.clone();
        }
        let chunk =
            |chunk: &[u8]| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat();
        let chunks: Vec<_> = self.body.chunks(10_000).map(chunk).collect();
        [&*chunks.concat(), b"0\r\n\r\n"].concat()
    }

    /// The answer, whether or not the complete body could be written.
    fn send(
        &self,
        gateway: &Gateway,
        write: impl FnOnce(&mut TcpStream) -> std::io::Result<()>,
    ) -> String {
        let mut stream = TcpStream::connect(gateway.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(self.head().as_bytes()).unwrap();
        let _ = write(&mut stream);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }
}

#[derive(Clone, Copy, Debug)]
enum Place {
    First,
    Middle,
    Last,
}

/// A JSON body of this many bytes, with the model at a position among `"input"`.
fn sized(length: usize, place: Place, model: &str) -> String {
    let model = format!("\"model\":\"{model}\"");
    let bare = format!("{{{model},\"input\":\"\",\"more\":\"\"}}");
    let fill = "x".repeat(length.checked_sub(bare.len()).expect("room for the rest"));
    let (half, rest) = fill.split_at(fill.len() / 2);
    let body = match place {
        Place::First => format!("{{{model},\"input\":\"{half}\",\"more\":\"{rest}\"}}"),
        Place::Middle => format!("{{\"input\":\"{half}\",{model},\"more\":\"{rest}\"}}"),
        Place::Last => format!("{{\"input\":\"{half}\",\"more\":\"{rest}\",{model}}}"),
    };
    assert_eq!(body.len(), length);
    body
}

const PLACES: [Place; 3] = [Place::First, Place::Middle, Place::Last];
const KIB: usize = 1 << 10;
const LIMITS: &str = "clients.open = true\n\
    limits = { replay = \"64 KiB\", body = \"1 MiB\", replay_total = \"2 MiB\" }";

fn refuses() -> Witness {
    Witness::new(|_| (429, "retry-after-ms: 20\r\n", String::new()))
}

#[test]
fn a_body_of_every_length_reaches_its_backend_under_that_backends_name() {
    let scene = Scene::new("sizes", serving(), LIMITS);
    let mut known = [0; 3];
    for length in
        [100, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 300 * KIB, 1_024 * KIB - 1, 1_024 * KIB]
    {
        for (place, is_chunked) in PLACES.iter().flat_map(|place| [(*place, false), (*place, true)])
        {
            for (model, backend, name) in
                [("gpt-4o", "east", "east-name"), ("other", "third", "third-name")]
            {
                let body = sized(length, place, model);
                let answer = scene.send(&Upload { is_chunked, ..Upload::json(&*body) });
                let case = format!("{length} {place:?} {is_chunked} {model}");
                assert!(answer.starts_with("HTTP/1.1 200"), "{case}: {answer}");
                let [(asked, request)] = &scene.asked(&mut known)[..] else { panic!("{case}") };
                assert_eq!(*asked, backend, "{case}");
                let expected = body.replace(&format!("\"{model}\""), &format!("\"{name}\""));
                assert!(request.body == expected.as_bytes(), "{case}");
                if !is_chunked {
                    assert_eq!(
                        request.header("content-length"),
                        Some(&*expected.len().to_string())
                    );
                }
            }
        }
    }
}

#[test]
fn every_attempt_has_the_name_of_its_backend() {
    let scene = Scene::new("attempts", refuses(), LIMITS);
    let mut known = [0; 3];
    for (length, place, is_kept) in [
        (64 * KIB, Place::First, true),
        (64 * KIB, Place::Last, true),
        (64 * KIB + 1, Place::First, false),
        // In memory when its model is known.
        (300 * KIB, Place::Last, true),
    ] {
        std::thread::sleep(Duration::from_millis(50));
        let body = sized(length, place, "gpt-4o");
        let answer = scene.send(&Upload::json(&*body));
        let asked = scene.asked(&mut known);
        let names: Vec<_> = asked
            .iter()
            .map(|(backend, asked)| {
                let body: Value = serde_json::from_slice(&asked.body).unwrap();
                (*backend, body["model"].as_str().unwrap().to_owned())
            })
            .collect();
        let (east, sweden) = (("east", "east-name".to_owned()), ("sweden", "gpt-4o".to_owned()));
        if is_kept {
            assert_eq!(names, [east, sweden], "{length} {place:?}: {answer}");
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        } else {
            assert_eq!(names, [east], "{length} {place:?}: {answer}");
            assert!(
                answer.contains("; why=not-replayable; waited=0ms; attempts=1\r\n"),
                "{answer}"
            );
        }
    }
}

fn form(model: &str, is_first: bool, audio: usize) -> Vec<u8> {
    let model = format!("--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n");
    let file = [
        &b"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"model\"\r\n\r\n"[..],
        &(0..audio).map(|index| (index ^ index >> 7) as u8).collect::<Vec<_>>(),
        b"\r\n",
    ]
    .concat();
    let parts = if is_first { [model.into_bytes(), file] } else { [file, model.into_bytes()] };
    [&*parts.concat(), b"--b--\r\n"].concat()
}

#[test]
fn a_form_reaches_its_backend_under_that_backends_name() {
    let scene = Scene::new("forms", serving(), LIMITS);
    let mut known = [0; 3];
    for (is_first, audio) in [(true, 100), (false, 100), (true, 500_000), (false, 500_000)] {
        for is_chunked in [false, true] {
            let upload = Upload {
                path: "/openai/v1/audio/transcriptions",
                kind: "multipart/form-data; boundary=b",
                is_chunked,
                ..Upload::json(form("gpt-4o", is_first, audio))
            };
            let answer = scene.send(&upload);
            assert!(answer.starts_with("HTTP/1.1 200"), "{is_first} {audio}: {answer}");
            let [("east", request)] = &scene.asked(&mut known)[..] else { panic!("one at east") };
            assert!(request.body == form("east-name", is_first, audio), "{is_first} {audio}");
        }
    }
    // A name inside a transfer encoding cannot be read.
    let encoded = String::from_utf8(form("Z3B0LTRv", true, 0)).unwrap();
    let encoded = encoded.replacen("\r\n\r\n", "\r\nContent-Transfer-Encoding: base64\r\n\r\n", 1);
    let upload = Upload {
        path: "/openai/v1/audio/transcriptions",
        kind: "multipart/form-data; boundary=b",
        ..Upload::json(encoded)
    };
    assert!(scene.send(&upload).starts_with("HTTP/1.1 400"));
    assert!(scene.asked(&mut known).is_empty());
}

#[test]
fn the_model_is_found_however_it_is_written() {
    let scene = Scene::new("shapes", serving(), LIMITS);
    let mut known = [0; 3];
    let text = "y".repeat(100 * KIB);
    for (body, expected) in [
        (format!(r#"{{"x":"{text}","mod\u0065l":"gpt-4o"}}"#), Some(2)),
        (format!(r#"{{"mod\u0065l":"gpt-4o","x":"{text}"}}"#), Some(2)),
        (format!("\n\t {{ \"x\" : \"{text}\" , \"model\"\n:\t\"gpt\\u002d4o\" }} \n"), Some(2)),
        (
            format!(
                r#"{{"metadata":{{"model":"other"}},"x":["{text}",{{"model":"other"}}],"model":"gpt-4o"}}"#
            ),
            Some(3),
        ),
        (format!(r#"{{"model":"gpt-4o","x":"{text}","metadata":{{"model":"other"}}}}"#), Some(3)),
        (r#"{"model":"gpt-4o","model":"gpt-4o","x":1}"#.to_owned(), Some(2)),
        (r#"{"model":"gpt-4o","model":"other"}"#.to_owned(), None),
        (format!(r#"{{"x":"{text}","model":"other","model":"gpt-4o"}}"#), None),
        (format!("\u{feff}{{\"model\":\"gpt-4o\",\"x\":\"{text}\"}}"), None),
        ("\u{feff}{\"model\":\"gpt-4o\"}".to_owned(), None),
    ] {
        let is_large = body.len() > 64 * KIB;
        let shape = body.replace(&text, "…");
        let answer = scene.send(&Upload::json(&*body));
        let asked = scene.asked(&mut known);
        if expected.is_none() {
            // In a long body, the first name is known before the second arrives.
            let is_refused = answer.starts_with("HTTP/1.1 400");
            let leaks = asked.iter().any(|(backend, asked)| {
                *backend == "east" && String::from_utf8_lossy(&asked.body).contains("\"gpt-4o\"")
                    || String::from_utf8_lossy(&asked.body).contains("\"other\"")
            });
            assert!(
                is_refused && !leaks && asked.is_empty(),
                "{shape} {is_large}: {answer} {}",
                asked.len()
            );
            continue;
        }
        assert!(answer.starts_with("HTTP/1.1 200"), "{shape}: {answer}");
        let [("east", request)] = &asked[..] else { panic!("{shape}") };
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(body["model"], "east-name", "{shape}");
        assert_eq!(
            body["metadata"]["model"],
            shape.contains("metadata").then_some("other").map_or(Value::Null, Value::from)
        );
    }
}

#[test]
fn a_second_model_that_comes_late_breaks_the_request_off() {
    let scene = Scene::new("late", serving(), LIMITS);
    let text = "y".repeat(300 * KIB);
    let body = format!(r#"{{"model":"gpt-4o","x":"{text}","model":"other"}}"#);
    let answer = scene.send(&Upload::json(&*body));
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("two models"), "{answer}");
    assert!(scene.asked(&mut [0; 3]).is_empty(), "no whole request reached a backend");
    // With chunks there is no fixed length, so both names are the backend's.
    let answer = scene.send(&Upload { is_chunked: true, ..Upload::json(&*body) });
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let asked = scene.asked(&mut [0; 3]);
    let sent = String::from_utf8_lossy(&asked[0].1.body).into_owned();
    assert_eq!((asked.len(), sent.matches("\"east-name\"").count()), (1, 2));
}

#[test]
fn aliases_and_names_that_nobody_configured_reach_no_backend() {
    let more = format!("default_model = \"gpt-4o\"\n{LIMITS}");
    let scene = Scene::new("aliases", refuses(), &more);
    let mut known = [0; 3];
    for model in ["gpt-alias", "gpt-5-of-tomorrow"] {
        for (length, place) in
            [(200, Place::First), (300 * KIB, Place::Last), (300 * KIB, Place::First)]
        {
            std::thread::sleep(Duration::from_millis(50));
            scene.send(&Upload::json(sized(length, place, model)));
            for (backend, asked) in scene.asked(&mut known) {
                let body: Value = serde_json::from_slice(&asked.body).unwrap();
                let name = if backend == "east" { "east-name" } else { "gpt-4o" };
                assert_eq!(body["model"], name, "{backend} {length} {place:?}");
            }
        }
        std::thread::sleep(Duration::from_millis(50));
        let path = format!("/openai/deployments/{model}/chat/completions?api-version=2024-10-21");
        scene.send(&Upload {
            path: &path,
            ..Upload::json(sized(300 * KIB, Place::Last, "whatever"))
        });
        let asked = scene.asked(&mut known);
        assert!(asked[0].1.head[0].contains("/deployments/east-name/"), "{}", asked[0].1.head[0]);
    }
}

#[test]
fn a_client_of_some_models_may_name_them_in_a_body_of_every_length() {
    let more = "limits = { replay = \"64 KiB\", body = \"1 MiB\", replay_total = \"2 MiB\" }\n\
                [clients.team-b]\nkeys = [\"env:TEAM_B_KEY\"]\nmodels = [\"gpt-4o\"]";
    let scene = Scene::new("restricted", serving(), more);
    let mut known = [0; 3];
    for (length, place) in [(200, Place::Last), (900 * KIB, Place::First), (900 * KIB, Place::Last)]
    {
        for (model, status) in [("gpt-4o", 200), ("other", 403)] {
            let body = sized(length, place, model);
            let answer = scene.send(&Upload {
                headers: "api-key: a-key-of-team-b-0001\r\n",
                ..Upload::json(body)
            });
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status}")),
                "{model} {length}: {answer}"
            );
            assert_eq!(scene.asked(&mut known).len(), usize::from(status == 200));
        }
        let two = sized(length, place, "gpt-4o").replacen('{', "{\"model\":\"other\",", 1);
        let answer = scene
            .send(&Upload { headers: "api-key: a-key-of-team-b-0001\r\n", ..Upload::json(two) });
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        assert!(scene.asked(&mut known).is_empty());
    }
}

#[test]
fn a_body_beyond_the_limit_is_refused_before_anything_is_sent() {
    let scene = Scene::new("beyond", serving(), LIMITS);
    for (place, is_chunked) in PLACES.iter().flat_map(|place| [(*place, false), (*place, true)]) {
        let body = sized(1_024 * KIB + 1, place, "gpt-4o");
        let upload = Upload { is_chunked, ..Upload::json(body) };
        let answer = scene.send(&upload);
        // Its beginning is forwarded if it names the model, and its length is unknown.
        if is_chunked && !matches!(place, Place::Last) {
            assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
        } else {
            assert!(answer.starts_with("HTTP/1.1 413"), "{place:?} {is_chunked}: {answer}");
            assert!(answer.contains("limits.body"), "{answer}");
        }
    }
    assert!(scene.asked(&mut [0; 3]).is_empty());
}

#[test]
fn a_body_that_cannot_be_read_for_its_model_is_refused_with_the_limit() {
    let limits = "clients.open = true\n\
        limits = { replay = \"64 KiB\", body = \"1 MiB\", replay_total = \"128 KiB\" }";
    let scene = Scene::new("unread", serving(), limits);
    for is_chunked in [false, true] {
        let body = sized(300 * KIB, Place::Last, "gpt-4o");
        let answer = scene.send(&Upload { is_chunked, ..Upload::json(body) });
        let status = if is_chunked { 503 } else { 413 };
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(answer.contains("limits.replay_total"), "{answer}");
    }
    assert!(scene.asked(&mut [0; 3]).is_empty());
    let answer = scene.send(&Upload::json(sized(300 * KIB, Place::First, "gpt-4o")));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn requests_get_one_attempt_while_uploads_hold_all_that_may_be_held() {
    let limits = "clients.open = true\n\
        limits = { replay = \"64 KiB\", body = \"1 MiB\", replay_total = \"200 KiB\" }";
    let scene = Scene::new("exhausted", refuses(), limits);
    let mut known = [0; 3];
    // They stop before they name a model.
    let uploads: Vec<_> = (0..4)
        .map(|_| {
            let upload = Upload::json(sized(150 * KIB, Place::Last, "gpt-4o"));
            let mut stream = TcpStream::connect(scene.gateway.address()).unwrap();
            stream.write_all(upload.head().as_bytes()).unwrap();
            stream.write_all(&upload.body[..49 * KIB]).unwrap();
            stream
        })
        .collect();
    std::thread::sleep(Duration::from_millis(500));
    let small = Upload::json(sized(8 * KIB, Place::Last, "gpt-4o"));
    let answer = scene.send(&small);
    assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
    assert!(answer.contains("; why=not-replayable; waited=0ms; attempts=1\r\n"), "{answer}");
    let [("east", asked)] = &scene.asked(&mut known)[..] else { panic!("{answer}") };
    assert!(
        asked.body
            == sized(8 * KIB, Place::Last, "gpt-4o").replace("gpt-4o", "east-name").as_bytes()
    );
    // Its model is beyond the part that may be kept.
    let answer = scene.send(&Upload::json(sized(150 * KIB, Place::Last, "gpt-4o")));
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(
        answer.contains("limits.replay_total") && answer.contains("retry-after: 1\r\n"),
        "{answer}"
    );
    assert!(scene.asked(&mut known).is_empty());

    drop(uploads);
    scene.gateway.eventually(|_| scene.send(&small).contains("attempts=2"));
}

#[test]
fn a_client_that_waits_to_be_asked_for_its_body_is_asked() {
    let scene = Scene::new("continue", serving(), LIMITS);
    let body = sized(300 * KIB, Place::Last, "gpt-4o");
    let upload = Upload { headers: "expect: 100-continue\r\n", ..Upload::json(&*body) };
    let answer = upload.send(&scene.gateway, |stream| {
        let mut begun = [0; 25];
        stream.read_exact(&mut begun)?;
        assert_eq!(&begun, b"HTTP/1.1 100 Continue\r\n\r\n");
        // Slowly, with the model last.
        for piece in body.as_bytes().chunks(60 * KIB) {
            stream.write_all(piece)?;
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    });
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let body: Value = serde_json::from_slice(&scene.east.asked()[0].body).unwrap();
    assert_eq!(body["model"], "east-name");
    let long = Upload { body: vec![b' '; 1_025 * KIB], ..upload };
    let answer = long.send(&scene.gateway, |_| Ok(()));
    assert!(answer.starts_with("HTTP/1.1 413"), "not asked for: {answer}");
}

#[test]
fn a_file_streams_through_whatever_its_length() {
    let limits = "clients.open = true\n\
        limits = { replay = \"64 KiB\", body = \"8 MiB\", replay_total = \"64 KiB\" }\ndefault_model = \"other\"";
    let scene = Scene::new("files", serving(), limits);
    let file = form("gpt-4o", false, 4 << 20);
    let upload = Upload {
        path: "/openai/v1/files",
        kind: "multipart/form-data; boundary=b",
        ..Upload::json(&*file)
    };
    let answer = scene.send(&upload);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let [("third", asked)] = &scene.asked(&mut [0; 3])[..] else { panic!("{answer}") };
    assert!(asked.body == file);
    assert_eq!(json!(asked.header("content-length")), json!(file.len().to_string()));
}

#[test]
fn a_second_backend_is_asked_by_its_own_name_in_a_form_that_is_kept() {
    let east = Witness::new(|asked| match asked.body.len() {
        0..200_000 => (429, "retry-after-ms: 20\r\n", String::new()),
        _ => (200, JSON, CHAT.to_owned()),
    });
    let scene = Scene::new("form-attempts", east, LIMITS);
    let upload = Upload {
        path: "/openai/v1/audio/transcriptions",
        kind: "multipart/mixed; boundary=b",
        ..Upload::json(form("gpt-4o", false, 150_000))
    };
    let answer = scene.send(&upload);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("attempts=2"), "{answer}");
    let asked = scene.asked(&mut [0; 3]);
    assert!(asked[0].1.body == form("east-name", false, 150_000));
    assert!(asked[1].1.body == form("gpt-4o", false, 150_000));
}
