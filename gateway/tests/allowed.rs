//! A client restricted to some models names others, in every place where the API selects one.

use crate::{
    emulate,
    served::{Answer, Gateway, TEAM_A, TEAM_B, ask_raw},
    witness::{Witness, serving},
};

/// `team-a` may use only `cheap`, `team-b` everything.
struct Scene {
    witness: Witness,
    gateway: Gateway,
}

impl Scene {
    fn new(name: &str) -> Self {
        Self::with(name, "")
    }

    fn with(name: &str, more: &str) -> Self {
        let witness = serving();
        let backend = |model: &str| {
            format!(
                "[[models.{model}.standard]]\nname = \"{model}\"\nendpoint = \"{}\"\n\
                 key = \"env:AZURE_KEY\"\n",
                witness.endpoint()
            )
        };
        let text = format!(
            "{more}default_model = \"cheap\"\nlisten.address = \"127.0.0.1:0\"\n\
             [clients.team-a]\nkeys = [\"env:TEAM_A_KEY\"]\nmodels = [\"cheap\"]\n\
             [clients.team-b]\nkeys = [\"env:TEAM_B_KEY\"]\n\
             [models.cheap]\naliases = [\"cheap-2\"]\n{}{}",
            backend("cheap"),
            backend("dear")
        );
        let path = emulate::file(&format!("allowed-{name}/g.toml"), &text);
        Self { witness, gateway: Gateway::start(&path) }
    }

    fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.post_as(TEAM_A, path, headers, body)
    }

    fn post_as(
        &self,
        key: (&str, &str),
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut head = format!(
            "POST {path} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\ncontent-length: {}\r\n\
             {}: {}\r\n",
            body.len(),
            key.0,
            key.1
        );
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        ask_raw(self.gateway.address(), &[format!("{head}\r\n").as_bytes(), body].concat())
    }

    fn json(&self, path: &str, body: &str) -> u16 {
        self.post(path, &[JSON], body.as_bytes()).status()
    }

    fn form(&self, path: &str, body: &str) -> u16 {
        self.post(path, &[FORM], body.as_bytes()).status()
    }

    fn asked(&self) -> usize {
        self.witness.asked().len()
    }

    /// None of these requests reaches a backend.
    #[track_caller]
    fn refuses(&self, statuses: &[u16], send: impl Fn(&Self) -> u16, what: &str) {
        let before = self.asked();
        let status = send(self);
        assert!(statuses.contains(&status), "{status} {what}");
        assert_eq!(self.asked(), before, "{what}");
    }
}

/// Makes the model decide, not the owner of the object.
const SERVES_UNKNOWN: &str = "sticky.unknown = \"serve\"\n";
const JSON: (&str, &str) = ("content-type", "application/json");
const FORM: (&str, &str) = ("content-type", "multipart/form-data; boundary=XX");
const RESPONSES: &str = "/openai/v1/responses";
const CLASSIC: &str = "/openai/deployments/cheap/chat/completions?api-version=2024-10-21";

#[test]
fn what_a_client_may_use_passes_wherever_it_is_named() {
    let scene = Scene::new("passes");
    for (path, body) in [
        (RESPONSES, r#"{"model":"cheap","input":"Hi","tools":[{"type":"image_generation"}]}"#),
        (
            RESPONSES,
            r#"{"model":"cheap-2","tools":[{"type":"image_generation","model":"cheap-2"}]}"#,
        ),
        (
            RESPONSES,
            r#"{"model":"cheap","metadata":{"model":"dear"},"input":"{\"model\":\"dear\"}"}"#,
        ),
        (RESPONSES, r#"{"model":"no such one, for which the default stands in","input":"Hi"}"#),
        (
            RESPONSES,
            r#"{"model":"cheap","tools":[{"type":"function","name":"f","parameters":{"properties":
            {"model":{"type":"string"},"deployment":{"type":"string"}},"required":["model"]}}]}"#,
        ),
        (CLASSIC, r#"{"model":"cheap","messages":[]}"#),
        (CLASSIC, r#"{"messages":[]}"#),
        (
            "/openai/v1/realtime/client_secrets",
            r#"{"session":{"type":"realtime","model":"cheap"}}"#,
        ),
        ("/openai/v1/evals", r#"{"testing_criteria":[{"type":"score_model","model":"cheap"}]}"#),
    ] {
        assert_eq!(scene.json(path, body), 200, "{path} {body}");
    }
    let other = scene.post_as(TEAM_B, RESPONSES, &[JSON], br#"{"model":"dear","image_model":"x"}"#);
    assert_eq!(other.status(), 200, "who may use everything is not looked at: {other:?}");
}

#[test]
fn a_model_of_others_is_refused_wherever_json_names_it() {
    let scene = Scene::new("json");
    for (path, body) in [
        (RESPONSES, r#"{"model":"dear"}"#),
        (RESPONSES, r#"{"model":"cheap","tools":[{"type":"image_generation","model":"dear"}]}"#),
        (RESPONSES, r#"{"model":"cheap","tools":[{"type":"image_generation","model":"unknown"}]}"#),
        (RESPONSES, r#"{"model":"cheap","tools":[{"image_deployment":"dear"}]}"#),
        (RESPONSES, r#"{"model":"cheap","tools":[{"m\u006fdel":"dear"}]}"#),
        (RESPONSES, r#"{"model":"cheap","tools":[{"Model":"dear"}]}"#),
        (RESPONSES, r#"{"model":"cheap","tools":[{"model":["dear"]}]}"#),
        (RESPONSES, r#"{"model":"cheap","MODEL":"dear"}"#),
        (RESPONSES, r#"{"model":"cheap","model":["dear"]}"#),
        (RESPONSES, r#"{"model":"cheap","models":["cheap","dear"]}"#),
        (
            RESPONSES,
            r#"{"model":"cheap","data_sources":[{"parameters":{"embedding_dependency":
            {"type":"deployment_name","deployment_name":"dear"}}}]}"#,
        ),
        (CLASSIC, r#"{"model":"dear","messages":[]}"#),
        (CLASSIC, r#"{"messages":[],"deployment_id":"dear"}"#),
        ("/openai/v1/realtime/client_secrets", r#"{"session":{"model":"dear"}}"#),
        (
            "/openai/v1/realtime/client_secrets",
            r#"{"session":{"audio":{"input":{"transcription":{"model":"dear"}}}}}"#,
        ),
        ("/openai/v1/fine_tuning/jobs", r#"{"model":"dear"}"#),
        ("/openai/v1/assistants", r#"{"model":"dear"}"#),
        ("/openai/v1/threads/runs", r#"{"assistant":{"model":"dear"}}"#),
        ("/openai/v1/evals", r#"{"testing_criteria":[{"type":"score_model","model":"dear"}]}"#),
        (
            "/openai/v1/fine_tuning/alpha/graders/run",
            r#"{"grader":{"graders":{"a":{"model":"dear"}}}}"#,
        ),
        ("/openai/v1/batches", r#"{"input_blob":"https://a.example/lines.jsonl"}"#),
        ("/openai/v1/uploads", r#"{"purpose":"batch","bytes":1}"#),
        ("/openai/v1/uploads", r#"{"Purpose":" batch ","bytes":1}"#),
        ("/openai/v1/uploads", r#"{"purpose":"user_data","purpose":"batch"}"#),
        ("/openai/v1/uploads", r#"{"purpose":["batch"]}"#),
        ("/openai/v1/files/import", r#"{"purpose":"batch\u0000","content_url":"https://a"}"#),
    ] {
        scene.refuses(&[403], |scene| scene.json(path, body), body);
    }
    let twice = r#"{"model":"cheap","model":"dear"}"#;
    scene.refuses(&[400, 403], |scene| scene.json(RESPONSES, twice), twice);
    let twice = r#"{"model":"cheap","m\u006Fdel":"dear"}"#;
    scene.refuses(&[400, 403], |scene| scene.json(RESPONSES, twice), twice);
}

#[test]
fn a_model_is_named_by_one_text_or_the_request_is_refused() {
    let scene = Scene::new("one-text");
    for body in [
        r#"{"model":null}"#,
        r#"{"model":false}"#,
        r#"{"model":1}"#,
        r#"{"model":{"id":"cheap"}}"#,
        r#"{"model":["cheap"]}"#,
        r#"{"model":"cheap","model":null}"#,
        r#"{"model":null,"model":"cheap"}"#,
        r#"{"model":"cheap","model":["cheap"]}"#,
        r#"{"model":"cheap","model":{"id":"dear"}}"#,
        r#"{"model":"cheap"," model":"dear"}"#,
        r#"{"model":"cheap","tools":[{"model":{"id":"dear"}}]}"#,
        r#"{"model":"cheap","tools":[{"model":[{"id":"dear"}]}]}"#,
        r#"{"model":"cheap","tools":[{"model":false}]}"#,
    ] {
        for path in [RESPONSES, CLASSIC] {
            scene.refuses(&[400, 403], |scene| scene.json(path, body), body);
        }
    }
}

#[test]
fn a_stored_prompt_does_not_choose_the_model() {
    let scene = Scene::with("prompt", SERVES_UNKNOWN);
    let secrets = "/openai/v1/realtime/client_secrets";
    for (path, body) in [
        (RESPONSES, r#"{"prompt":{"id":"pmpt_1"}}"#),
        (RESPONSES, r#"{"Prompt":{"ID":"pmpt_1"}}"#),
        (RESPONSES, r#"{"prompt":[{"id":"pmpt_1"}]}"#),
        (RESPONSES, r#"{"prompt":{"id":"pmpt_1"},"Model":"cheap"}"#),
        (RESPONSES, r#"{"prompt":{"id":"pmpt_1"},"model":null}"#),
        ("/openai/v1/responses/compact", r#"{"prompt":{"id":"pmpt_1"}}"#),
        (secrets, r#"{"session":{"prompt":{"id":"pmpt_1"}}}"#),
        (secrets, r#"{"session":{"prompt":{"id":"pmpt_1"},"model":null}}"#),
        (secrets, r#"{"session":{"prompt":{"id":"pmpt_1"},"model":"cheap","model":null}}"#),
        (secrets, r#"{"session":{"type":"realtime"}}"#),
        (secrets, ""),
    ] {
        scene.refuses(&[400, 403], |scene| scene.json(path, body), body);
    }
    for (path, body) in [
        (RESPONSES, r#"{"prompt":{"id":"pmpt_1","variables":{"model":"x"}},"model":"cheap"}"#),
        (secrets, r#"{"session":{"prompt":{"id":"pmpt_1"},"model":"cheap"}}"#),
        ("/openai/v1/completions", r#"{"model":"cheap","prompt":["Hi"]}"#),
    ] {
        assert_eq!(scene.json(path, body), 200, "{body}");
    }
}

#[test]
fn what_others_made_does_not_choose_the_model() {
    let scene = Scene::with("ids", SERVES_UNKNOWN);
    for (path, body) in [
        ("/openai/threads/runs", r#"{"assistant_id":"asst_1","thread":{}}"#),
        ("/openai/threads/thread_1/runs", r#"{"assistant_id":"asst_1"}"#),
        ("/openai/v1/evals/eval_1/runs", r#"{"data_source":{"type":"jsonl"}}"#),
        ("/openai/v1/videos/video_1/remix", r#"{"prompt":"x"}"#),
        ("/openai/v1/videos/extensions", r#"{"video":{"id":"video_1"}}"#),
        ("/openai/v1/fine_tuning/jobs/ftjob-1/resume", ""),
        ("/openai/v1/batches", r#"{"input_file_id":"file-1"}"#),
    ] {
        scene.refuses(&[403, 404], |scene| scene.json(path, body), path);
    }
    let named = r#"{"assistant_id":"asst_1","model":"cheap","thread":{}}"#;
    assert_eq!(scene.json("/openai/threads/runs", named), 200);
}

#[test]
fn a_session_description_is_one_where_it_is_said_to_be() {
    let scene = Scene::new("sdp");
    let calls = "/openai/v1/realtime/calls?model=cheap";
    let sdp = |path: &str, body: &str| {
        scene.post(path, &[("content-type", "application/sdp")], body.as_bytes()).status()
    };
    assert_eq!(sdp(calls, "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\n"), 200);
    let json = r#"{"model":"cheap","tools":[{"type":"image_generation","model":"dear"}]}"#;
    for (path, body) in [
        (RESPONSES, json),
        (CLASSIC, r#"{"model":"dear"}"#),
        (calls, json),
        (RESPONSES, "v=0\r\n"),
        ("/openai/v1/batches", r#"{"input_blob":"https://a"}"#),
    ] {
        scene.refuses(&[400, 403], |_| sdp(path, body), body);
    }
}

#[test]
fn a_model_of_others_is_refused_in_the_query_and_in_headers() {
    let scene = Scene::new("head");
    let body = br#"{"model":"cheap"}"#;
    for query in ["model=dear", "deployment=dear", "a=b&M%6Fdel=dear", "model=cheap&model=dear"] {
        let path = format!("{RESPONSES}?{query}");
        scene.refuses(&[403], |scene| scene.post(&path, &[JSON], body).status(), query);
    }
    let image = "x-ms-oai-image-generation-deployment";
    for headers in [&[JSON, (image, "dear")][..], &[JSON, (image, "cheap"), (image, "dear")]] {
        scene.refuses(&[403], |scene| scene.post(RESPONSES, headers, body).status(), image);
    }
    let passed = scene.post(&format!("{RESPONSES}?model=cheap"), &[JSON, (image, "cheap")], body);
    assert_eq!(passed.status(), 200, "{passed:?}");
}

#[test]
fn a_body_that_cannot_be_read_is_refused() {
    let scene = Scene::new("unread");
    let utf16: Vec<u8> = r#"{"model":"dear"}"#.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let hidden = br#"{"model":"cheap"}"#;
    for (headers, body) in [
        (&[JSON, ("content-encoding", "gzip")][..], &hidden[..]),
        (&[JSON, ("content-encoding", "identity"), ("content-encoding", "br")], hidden),
        (&[JSON], &utf16),
        (&[JSON], b"\xef\xbb\xbf{\"model\":\"dear\"}"),
        (&[JSON], b"{\"model\":\"cheap\",\"x\":\"\xff\"}"),
        (&[JSON], br#"[{"model":"dear"}]"#),
        (&[JSON], br#"{"model":"cheap"}{"model":"dear"}"#),
        (&[JSON], br#"{"model":"cheap",/**/"tools":[]}"#),
        (&[("content-type", "application/json; charset=utf-16")], hidden),
        (&[("content-type", "application/x-www-form-urlencoded")], b"model=dear"),
        (&[("content-type", "text/plain")], b"model=dear"),
        (&[JSON, ("content-type", "text/plain")], hidden),
    ] {
        let send = |scene: &Scene| scene.post(RESPONSES, headers, body).status();
        scene.refuses(&[400, 415], send, &String::from_utf8_lossy(body));
    }
}

const TRANSCRIBE: &str = "/openai/v1/audio/transcriptions";

fn part(head: &str, content: &str) -> String {
    format!("--XX\r\ncontent-disposition: form-data; {head}\r\n\r\n{content}\r\n")
}

#[test]
fn a_form_names_a_model_that_the_client_may_use_or_is_refused() {
    let scene = Scene::new("form");
    let file = part("name=\"file\"; filename=\"a.wav\"", "RIFF");
    let (cheap, dear) = (part("name=model", "cheap"), part("name=\"model\"", "dear"));
    for form in [format!("{file}{cheap}--XX--\r\n"), format!("{cheap}{file}--XX--")] {
        assert_eq!(scene.form(TRANSCRIBE, &form), 200, "{form}");
    }
    for form in [
        format!("{file}{dear}--XX--\r\n"),
        format!("{cheap}{dear}--XX--\r\n"),
        format!("{cheap}{}--XX--\r\n", part("name=\"Model\"", "dear")),
        format!("{cheap}{}--XX--\r\n", part("name=\"model[]\"", "dear")),
        format!("{cheap}{}--XX--\r\n", part("name=\"mod%65l\"", "dear")),
        format!("{}{cheap}--XX--\r\n", part("name=\"%6dodel\"", "dear")),
        format!("{cheap}{}--XX--\r\n", part("name*=UTF-8''model", "dear")),
        format!("{cheap}{}--XX--\r\n", part("name=x; name=model", "dear")),
        format!("{cheap}{}--XX--\r\n", part("name=image_deployment", "dear")),
        format!("{cheap}{}--XX--\r\n", part("name=session", r#"{"model":"dear"}"#)),
        format!("preamble\r\n{cheap}--XX--\r\n"),
        format!("{cheap}--XX--\r\n{dear}--XX--\r\n"),
        format!("{cheap}{file}--XX--\r\n").replace("RIFF", &dear.replace("\r\n", "\n")),
        format!("{cheap}--XX--\r\n").replace("\r\n", "\n"),
        format!(
            "{cheap}--XX\r\ncontent-type: multipart/mixed; boundary=YY\r\ncontent-disposition: \
             form-data; name=x\r\n\r\n--YY\r\n\r\n--YY--\r\n--XX--\r\n"
        ),
    ] {
        scene.refuses(&[400, 403], |scene| scene.form(TRANSCRIBE, &form), &form);
    }
    let classic = "/openai/deployments/cheap/audio/transcriptions?api-version=2024-10-21";
    let form = format!("{file}{dear}--XX--\r\n");
    scene.refuses(&[403], |scene| scene.form(classic, &form), &form);
}

#[test]
fn the_session_of_a_call_is_json_that_can_be_read() {
    let scene = Scene::new("session");
    let send = |head: &str, session: &[u8]| {
        let offer = part("name=\"sdp\"", "v=0");
        let start = format!("{offer}--XX\r\ncontent-disposition: form-data; {head}\r\n\r\n");
        let form = [start.as_bytes(), session, b"\r\n--XX--\r\n"].concat();
        scene.post("/openai/v1/realtime/calls", &[FORM], &form).status()
    };
    let session = "name=\"session\"";
    assert_eq!(send(session, br#"{"type":"realtime","model":"cheap"}"#), 200);
    let dear = r#"{"type":"realtime","model":"dear"}"#;
    let utf16 = |to: fn(u16) -> [u8; 2]| dear.encode_utf16().flat_map(to).collect::<Vec<u8>>();
    let deep = format!(r#"{{"x":{}{},"model":"dear"}}"#, "[".repeat(200), "]".repeat(200));
    for (head, text) in [
        (session, dear.as_bytes()),
        ("name=session; filename=\"s.json\"", dear.as_bytes()),
        ("name=\"Session\"", dear.as_bytes()),
        ("name=\"session[]\"", dear.as_bytes()),
        (session, format!("\u{feff}{dear}").as_bytes()),
        (session, format!("\u{a0}{dear}").as_bytes()),
        (session, format!("\u{b}{dear}").as_bytes()),
        (session, format!("/**/{dear}").as_bytes()),
        (session, format!("{dear}\0").as_bytes()),
        (session, &utf16(u16::to_le_bytes)),
        (session, &utf16(u16::to_be_bytes)),
        (session, deep.as_bytes()),
        (session, br#"{"model":"dear",}"#),
        (session, br#"{"x":NaN,"model":"dear"}"#),
        (session, br#"{"x":1e999,"model":"dear"}"#),
        (session, br#"{"x":"\ud800","model":"dear"}"#),
        (session, b"{\"x\":\"\xff\",\"model\":\"dear\"}"),
        (session, b"{\"x\":\"a\nb\",\"model\":\"dear\"}"),
        (session, br#""{\"model\":\"dear\"}""#),
        (session, br#"{"prompt":{"id":"pmpt_1"}}"#),
        ("name=\"session[prompt][id]\"", b"pmpt_1"),
        ("name=\"tools\"", br#"[{"model":"dear",}]"#),
    ] {
        let what = format!("{head} {}", String::from_utf8_lossy(text));
        scene.refuses(&[400, 403], |_| send(head, text), &what);
    }
}

#[test]
fn what_a_file_is_for_is_said_plainly() {
    let scene = Scene::new("purpose");
    let file = part("name=\"file\"; filename=\"in.jsonl\"", r#"{"body":{"model":"dear"}}"#);
    for purpose in [
        part("name=\"purp%6fse\"", "batch"),
        part("name=\"purpose[]\"", "batch"),
        part("name=\"Purpose\"", "batch"),
        part("name=\"purpose\"", "\"batch\""),
        part("name=\"purpose\"", "\u{feff}batch"),
        part("name=\"purpose\"", "\0batch"),
        part("name=\"purpose\"", "\u{a0}batch"),
        part("name=\"purpose\"", "Batch"),
        part("name=\"purpose\"", "batch "),
        part("name=\"purpose\"; filename=x", "batch"),
        part("name=\"purpose\"", "user_data") + &part("name=\"purpose\"", "batch"),
        String::new(),
    ] {
        let form = format!("{purpose}{file}--XX--\r\n");
        for path in ["/openai/v1/files", "/openai/v1/uploads"] {
            scene.refuses(&[400, 403], |scene| scene.form(path, &form), &form);
        }
    }
    let form = format!("{}--XX--\r\n", part("name=purpose", "batch"));
    scene.refuses(&[403], |scene| scene.form("/openai/v1/uploads", &form), "in pieces");
    for purpose in ["user_data", "fine-tune"] {
        let form = format!("{}{file}--XX--\r\n", part("name=\"purpose\"", purpose));
        assert_eq!(scene.form("/openai/v1/files", &form), 200, "{form}");
        let json = format!(r#"{{"purpose":"{purpose}","filename":"a"}}"#);
        assert_eq!(scene.json("/openai/v1/uploads", &json), 200, "{json}");
    }
}

#[test]
fn the_input_of_a_batch_names_models_that_the_client_may_use() {
    let scene = Scene::new("batch");
    let upload = |purpose: &str, lines: &[&str]| {
        let file = part("name=\"file\"; filename=\"in.jsonl\"", &lines.join("\n"));
        format!("{}{file}--XX--\r\n", part("name=\"purpose\"", purpose))
    };
    let line = |model: &str| {
        format!(r#"{{"custom_id":"1","method":"POST","url":"/v1/responses","body":{{{model}}}}}"#)
    };
    let (cheap, dear) = (line(r#""model":"cheap""#), line(r#""model":"dear""#));
    for (purpose, lines) in [("batch", &[&*cheap, &cheap, ""][..]), ("assistants", &[&*dear])] {
        assert_eq!(scene.form("/openai/v1/files", &upload(purpose, lines)), 200, "{lines:?}");
    }
    let by_path = cheap.replace("/v1/responses", "/openai/deployments/dear/chat/completions");
    let nested = line(r#""model":"cheap","tools":[{"model":"dear"}]"#);
    for lines in [
        &[&*dear][..],
        &[&cheap, &dear],
        &[&cheap, &line("")],
        &[&line(r#""model":"cheap","m\u006fdel":"dear""#)],
        &[&nested],
        &[&by_path],
        &[&by_path.replace("\"url\"", "\"Url\"")],
        &[&by_path.replace("deployments", "deployment\\u0073")],
        &[&cheap.replace("}}", r#"},"body":{"input":"Hi"}}"#)],
        &[&cheap.replace("}}", r#"},"Body":{"model":"cheap"}}"#)],
        &[&cheap.replace("\"body\"", "\"Body\"")],
        &[&line(r#""Model":"cheap""#)],
        &[&line(r#""model":"cheap","model":null"#)],
        &["no json"],
    ] {
        let form = upload("batch", lines);
        scene.refuses(&[400, 403], |scene| scene.form("/openai/v1/files", &form), &form);
    }
}
