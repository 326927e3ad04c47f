//! An operator's questions to a running gateway: which requests there were, and what happened to
//! one.

use std::{
    process::{Command, Output},
    thread,
};

use serde_json::Value;

use crate::{
    emulate,
    served::{Gateway, OPERATOR, TEAM_A, TEAM_B},
    started::{ran, stderr, stdout},
    witness::{Witness, refusing, serving},
};

/// A PTU that refuses for half a minute, and Standard, whose answers have the service's ids.
fn scene(name: &str, rest: &str) -> (Gateway, Witness, Witness) {
    let ptu = Witness::new(|_| {
        let head = "retry-after-ms: 30000\r\nazure-openai-deployment-utilization: 101.6%\r\n\
                    apim-request-id: refused-1\r\n";
        (429, head, String::new())
    });
    let standard = Witness::new(|_| {
        let head = "content-type: application/json\r\napim-request-id: A1B2-served\r\n\
                    x-request-id: of-the-service\r\n";
        let usage = r#"{"choices":[],"usage":{"prompt_tokens":11,"completion_tokens":7,
            "prompt_tokens_details":{"cached_tokens":4}}}"#;
        (200, head, usage.to_owned())
    });
    let text = format!(
        "listen = {{ address = \"127.0.0.1:0\", admin = \"127.0.0.1:0\" }}\n{rest}\n\
         [models.\"gpt-4o\"]\nmax_wait = \"1s\"\n\
         ptu = [{{ name = \"ptu-east\", endpoint = \"{}\", key = \"env:AZURE_KEY\" }}]\n\
         standard = [{{ name = \"sweden\", endpoint = \"{}\", key = \"env:AZURE_KEY\" }}]\n",
        ptu.endpoint(),
        standard.endpoint(),
    );
    let config = emulate::file(&format!("questions-{name}/g.toml"), &text);
    (Gateway::start(&config), ptu, standard)
}

const TEAMS: &str = "[clients.team-a]\nkeys = [\"env:TEAM_A_KEY\"]\nmay = [\"max-wait\"]\n\
    [clients.team-b]\nkeys = [\"env:TEAM_B_KEY\"]\n\
    [clients.operators]\nkeys = [\"env:OPERATOR_KEY\"]\nmodels = []\nmay = [\"operate\"]";

fn requests(gateway: &Gateway, query: &str) -> Vec<Value> {
    let page = gateway.page(&format!("/-/requests{query}"));
    assert_eq!(page.status(), 200, "{page:?}");
    let (_, body) = page.0.split_once("\r\n\r\n").unwrap();
    let document: Value = serde_json::from_str(body).unwrap();
    document["requests"].as_array().unwrap().clone()
}

fn why(gateway: &Gateway, arguments: &[&str]) -> Output {
    let admin = format!("http://{}", gateway.admin());
    ran(&[&["why", "--admin", &admin], arguments].concat())
}

#[test]
fn the_last_requests_are_shown_with_every_attempt_and_found_by_what_they_have() {
    let (gateway, ..) = scene("ring", TEAMS);
    let own = [TEAM_A, ("x-request-id", "mine-1"), ("x-ms-client-request-id", "sdk-7")];
    assert_eq!(gateway.chat("gpt-4o", &own).status(), 200);
    assert_eq!(gateway.chat("gpt-4o", &[TEAM_B]).status(), 200);
    assert_eq!(gateway.chat("unheard-of", &[TEAM_B]).status(), 404);
    gateway.eventually(|gateway| requests(gateway, "").len() == 3);

    let [first] = &requests(&gateway, "?client=team-a")[..] else { panic!("one is of team-a") };
    assert_eq!((&first["id"], &first["client"]), (&"mine-1".into(), &"team-a".into()));
    assert_eq!((&first["decision"], &first["backend"]), (&"standard".into(), &"sweden".into()));
    let [refused, served] = &first["attempts"].as_array().unwrap()[..] else { panic!("{first:#}") };
    assert_eq!((&refused["backend"], &refused["tier"]), (&"ptu-east".into(), &"ptu".into()));
    assert_eq!((&refused["status"], &refused["hint_ms"]), (&429.into(), &30_000.into()));
    assert_eq!((&served["backend"], &served["status"]), (&"sweden".into(), &200.into()));
    assert_eq!(first["tokens"]["cached"], 4, "{first:#}");
    assert_eq!(first["ended"], "complete");

    for (query, count) in [
        ("?id=mine-1", 1),
        ("?id=a1b2-SERVED", 2),
        ("?id=of-the-service", 2),
        ("?id=sdk-7", 1),
        ("?id=refused-1", 0),
        ("?client=team-b", 2),
        ("?client=team-b&status=404", 1),
        ("?model=gpt-4o", 2),
        ("?model=gpt%2D4o&client=team-b", 1),
        ("?decision=gateway", 1),
        ("?decision=standard", 2),
        ("?decision=spilled", 2),
        ("?decision=ptu", 0),
        ("?limit=1", 1),
        ("?client=nobody", 0),
    ] {
        assert_eq!(requests(&gateway, query).len(), count, "{query}");
    }
    let latest = &requests(&gateway, "?limit=1")[0];
    assert_eq!((&latest["status"], &latest["attempts"]), (&404.into(), &Value::Array(vec![])));
    let wrong = gateway.page("/-/requests?clients=a");
    assert_eq!(wrong.status(), 400);
    assert!(wrong.0.contains("is not a filter; use id, client, model"), "{wrong:?}");
    for text in [format!("{:?}", requests(&gateway, "")), gateway.log()] {
        assert!(!text.contains(TEAM_A.1) && !text.contains("azure-key"), "{text}");
    }
}

#[test]
fn the_last_requests_are_for_operators_alone() {
    let (gateway, ..) = scene("rights", TEAMS);
    let ask = |headers: &[(&str, &str)]| gateway.ask("GET", "/-/requests?limit=1", headers, "");
    assert_eq!(ask(&[]).status(), 401);
    assert_eq!(ask(&[TEAM_A]).status(), 403);
    assert_eq!(ask(&[OPERATOR]).status(), 200);
    assert_eq!(gateway.ask("POST", "/-/requests", &[OPERATOR], "").status(), 405);
}

#[test]
fn as_many_requests_are_kept_as_is_configured_and_clients_without_a_key_push_none_out() {
    let rest = format!("telemetry.recent_requests = 3\n{TEAMS}");
    let (gateway, ..) = scene("bounded", &rest);
    for number in 0..5 {
        let id = format!("r-{number}");
        assert_eq!(gateway.chat("gpt-4o", &[TEAM_A, ("x-request-id", &id)]).status(), 200);
    }
    let ids = |gateway: &Gateway| -> Vec<String> {
        requests(gateway, "").iter().map(|it| it["id"].as_str().unwrap().to_owned()).collect()
    };
    gateway.eventually(|gateway| ids(gateway) == ["r-4", "r-3", "r-2"]);

    let (gateway, ..) = scene("flood", &format!("telemetry.recent_requests = 200\n{TEAMS}"));
    assert_eq!(gateway.chat("gpt-4o", &[TEAM_A, ("x-request-id", "mine")]).status(), 200);
    for _ in 0..300 {
        assert_eq!(gateway.chat("gpt-4o", &[]).status(), 401);
    }
    assert_eq!(requests(&gateway, "?id=mine").len(), 1);

    let (gateway, ..) = scene("none", &format!("telemetry.recent_requests = 0\n{TEAMS}"));
    assert_eq!(gateway.chat("gpt-4o", &[TEAM_A, ("x-request-id", "mine")]).status(), 200);
    assert!(requests(&gateway, "").is_empty());
    let output = why(&gateway, &["mine"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("set telemetry.recent_requests"), "{}", stderr(&output));
}

#[test]
fn why_tells_the_story_of_a_request_by_any_id_that_its_client_saw() {
    let (gateway, ..) = scene("why", TEAMS);
    let answer = gateway.chat("gpt-4o", &[TEAM_A]);
    let (id, of_service) =
        (answer.header("x-request-id").unwrap(), answer.header("apim-request-id").unwrap());
    gateway.eventually(|gateway| !requests(gateway, "").is_empty());
    for id in [id, of_service] {
        let output = why(&gateway, &[id]);
        let told = stdout(&output);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        for part in [
            "chat.completions of gpt-4o for team-a",
            "ptu-east (ptu): 429, asks for 30000 ms",
            "spilled: hint (30s > ",
            "sweden (standard): 200",
            "answered by sweden (standard) with 200",
            "11 of the prompt (4 cached), 7 of the completion",
            "apim-request-id A1B2-served",
        ] {
            assert!(told.contains(part), "{part} is not in\n{told}");
        }
    }
    let json: Value = serde_json::from_str(&stdout(&why(&gateway, &[id, "--json"]))).unwrap();
    assert_eq!(json[0]["id"], id);

    let output = why(&gateway, &["no such/id?&"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no request with the id"), "{}", stderr(&output));
}

#[test]
fn why_says_what_keeps_it_from_asking_and_never_shows_a_key() {
    let (gateway, ..) = scene("refused", TEAMS);
    let public = format!("http://{}", gateway.address());
    let ask = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spillover"));
        command.args(["why", "some-id", "--admin", &public]).args(arguments);
        command.env("A_KEY", TEAM_A.1).env("OPERATOR_KEY", OPERATOR.1).output().unwrap()
    };
    for (arguments, status, told) in [
        (&[][..], 2, "answered 401"),
        (&["--key", "env:A_KEY"][..], 2, "needs may = [\"operate\"]"),
        (&["--key", "env:OPERATOR_KEY"], 1, "no request with the id \"some-id\""),
        (&["--key", TEAM_A.1], 2, "--key must be env:NAME or file:PATH"),
        (&["--key", "env:NOT_SET_AT_ALL"], 2, "NOT_SET_AT_ALL is not set"),
    ] {
        let output = ask(arguments);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(status), "{said}");
        assert!(said.contains(told) && !said.contains(TEAM_A.1), "{told}\n{said}");
    }
    for (admin, told) in [
        ("127.0.0.1:1", "--admin is not a URL like"),
        ("http://me:s3cret@127.0.0.1:1", "passwords in URLs are not sent"),
        ("http://127.0.0.1:1", "check --admin"),
    ] {
        let output = ran(&["why", "some-id", "--admin", admin]);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(told) && !said.contains("s3cret"), "{told}\n{said}");
    }
}

#[test]
fn how_full_a_ptu_says_it_is_is_shown_in_per_cent_and_as_a_ratio() {
    let (gateway, ..) = scene("full", TEAMS);
    assert_eq!(gateway.chat("gpt-4o", &[TEAM_A]).status(), 200);
    gateway.eventually(|gateway| {
        let line = "spillover_backend_utilization_ratio{model=\"gpt-4o\",tier=\"ptu\",\
                    backend=\"ptu-east\"} 1.016";
        gateway.page("/metrics").0.lines().any(|other| other == line)
    });
    let status = gateway.page("/-/status").0;
    let document: Value = serde_json::from_str(status.split_once("\r\n\r\n").unwrap().1).unwrap();
    let backends = &document["models"]["gpt-4o"]["backends"];
    assert_eq!(backends[0]["utilization_percent"], 101.6);
    assert!(backends[1]["utilization_percent"].is_null(), "Standard has none");

    let full = Witness::new(|_| {
        let head = "azure-openai-deployment-utilization: 12.3%\r\n";
        (200, head, String::new())
    });
    let text = format!(
        "listen = {{ address = \"127.0.0.1:0\", admin = \"127.0.0.1:0\" }}\nclients.open = true\n\
         models.m.ptu = [{{ name = \"a\", endpoint = \"{}\", key = \"env:AZURE_KEY\" }}]\n",
        full.endpoint()
    );
    let gateway = Gateway::start(&emulate::file("questions-answered/g.toml", &text));
    assert_eq!(gateway.chat("m", &[]).status(), 200);
    let line = "spillover_backend_utilization_ratio{model=\"m\",tier=\"ptu\",backend=\"a\"} 0.123";
    gateway.eventually(|gateway| gateway.page("/metrics").0.lines().any(|other| other == line));
}

#[test]
fn who_spilled_is_shown_by_client_backend_and_kind_of_token() {
    let (gateway, ..) = scene("who", TEAMS);
    assert_eq!(gateway.chat("gpt-4o", &[TEAM_A]).status(), 200);
    assert_eq!(gateway.chat("gpt-4o", &[TEAM_B]).status(), 200);
    let page = |gateway: &Gateway| gateway.page("/metrics").0;
    gateway.eventually(|gateway| {
        page(gateway).matches("spillover_spilled_requests_total{").count() >= 2
    });
    let page = page(&gateway);
    for client in ["team-a", "team-b"] {
        let spilled = format!(
            "spillover_spilled_requests_total{{client=\"{client}\",model=\"gpt-4o\",backend=\"sweden\""
        );
        assert!(page.lines().any(|line| line.starts_with(&spilled)), "{spilled}\n{page}");
        for (kind, number) in [("prompt", 11), ("cached", 4), ("completion", 7)] {
            for line in [
                format!(
                    "spillover_spilled_tokens_total{{client=\"{client}\",model=\"gpt-4o\",backend=\"sweden\",kind=\"{kind}\"}} {number}"
                ),
                format!(
                    "spillover_tokens_total{{client=\"{client}\",model=\"gpt-4o\",backend=\"sweden\",tier=\"standard\",kind=\"{kind}\"}} {number}"
                ),
            ] {
                assert!(page.lines().any(|other| other == line), "{line}\n{page}");
            }
        }
    }
}

#[test]
fn a_scraper_gets_the_format_that_it_accepts() {
    let (gateway, ..) = scene("accept", "clients.open = true");
    assert_eq!(gateway.chat("gpt-4o", &[]).status(), 200);
    let ask = |accept: Option<&str>| {
        let headers: Vec<_> = accept.map(|accept| ("accept", accept)).into_iter().collect();
        crate::served::ask(gateway.admin(), "GET", "/metrics", &headers, "").unwrap()
    };
    for (accept, kind) in [
        (None, "text/plain; version=0.0.4; charset=utf-8"),
        (Some("*/*"), "text/plain; version=0.0.4; charset=utf-8"),
        (
            Some("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.7"),
            "text/plain; version=0.0.4; charset=utf-8",
        ),
        (
            Some("application/openmetrics-text;version=1.0.0,*/*;q=0.1"),
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        ),
    ] {
        let page = ask(accept);
        assert_eq!(page.header("content-type"), Some(kind), "{accept:?}");
        assert_eq!(page.header("vary"), Some("accept"));
        let is_open = kind.starts_with("application");
        assert_eq!(page.0.ends_with("# EOF\n"), is_open, "{accept:?}");
        let counter = if is_open { "spillover_requests" } else { "spillover_requests_total" };
        assert!(page.0.contains(&format!("# TYPE {counter} counter\n")), "{page:?}");
        assert!(page.0.contains("spillover_build_info{version="), "{page:?}");
        assert_eq!(page.0.contains("# UNIT"), is_open);
    }
}

#[test]
fn the_status_has_the_rates_of_the_last_minute() {
    let (gateway, ..) = scene("rates", "clients.open = true");
    for _ in 0..4 {
        assert_eq!(gateway.chat("gpt-4o", &[]).status(), 200);
    }
    let minute = |gateway: &Gateway| -> Value {
        let status = gateway.page("/-/status").0;
        let (_, body) = status.split_once("\r\n\r\n").unwrap();
        let document: Value = serde_json::from_str(body).unwrap();
        document["models"]["gpt-4o"]["last_minute"].clone()
    };
    gateway.eventually(|gateway| minute(gateway)["spilled_percent"] == 100.0);
    let minute = minute(&gateway);
    let requests =
        minute["standard_per_second"].as_f64().unwrap() * minute["seconds"].as_f64().unwrap();
    assert!((3.9..4.1).contains(&requests), "{minute:#}");
    assert!(minute["prompt_tokens_per_second"].as_f64().unwrap() > 0.0, "{minute:#}");
}

#[test]
fn a_log_that_is_not_json_is_logfmt() {
    let (gateway, ..) = scene("logfmt", "telemetry.json = false\nclients.open = true");
    assert_eq!(gateway.chat("gpt-4o", &[("x-request-id", "mine")]).status(), 200);
    gateway.eventually(|gateway| gateway.log().contains(" id=mine "));
    let log = gateway.log();
    let line = log.lines().find(|line| line.contains(" id=mine ")).unwrap();
    assert!(line.starts_with("ts=20") && line.contains(" level=info msg=request "), "{line}");
    assert!(
        line.contains(" course=\"ptu-east 429 (30000 ms), sweden 200; spilled: hint (30s > "),
        "{line}"
    );
    assert!(line.ends_with(" target=spillover::request"), "{line}");
}

#[test]
fn the_first_token_of_a_stream_is_timed_apart_from_its_head() {
    let stream = Witness::new(|_| {
        let head = "data: {\"choices\":[],\"prompt_filter_results\":[]}\n\n";
        let rest = "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\ndata: [DONE]\n\n";
        let events = format!("{head}{}{rest}", crate::witness::PAUSE);
        (200, "content-type: text/event-stream\r\n", events)
    });
    let text = format!(
        "listen = {{ address = \"127.0.0.1:0\", admin = \"127.0.0.1:0\" }}\nclients.open = true\n\
         models.m.standard = [{{ name = \"a\", endpoint = \"{}\", key = \"env:AZURE_KEY\" }}]\n",
        stream.endpoint()
    );
    let gateway = Gateway::start(&emulate::file("questions-first-token/g.toml", &text));
    assert_eq!(gateway.chat("m", &[]).status(), 200);
    gateway.eventually(|gateway| !requests(gateway, "").is_empty());
    let request = &requests(&gateway, "")[0];
    let (head, token) =
        (request["to_head_ms"].as_u64().unwrap(), request["first_token_ms"].as_u64().unwrap());
    assert!(token >= 1_900 && head < 1_000, "{request:#}");
    let line = "spillover_time_to_first_token_seconds_count{model=\"m\",decision=\"standard\"} 1";
    assert!(gateway.page("/metrics").0.lines().any(|other| other == line));
}

#[test]
fn requests_are_kept_while_many_end_at_once_and_the_page_is_read() {
    let (gateway, ..) = scene("crowd", "telemetry.recent_requests = 16\nclients.open = true");
    thread::scope(|scope| {
        for worker in 0..4 {
            let gateway = &gateway;
            scope.spawn(move || {
                for number in 0..25 {
                    let id = format!("{worker}-{number}");
                    assert_eq!(gateway.chat("gpt-4o", &[("x-request-id", &id)]).status(), 200);
                    assert!(requests(gateway, "").len() <= 16);
                }
            });
        }
    });
    gateway.eventually(|gateway| {
        let page = gateway.page("/-/requests").0;
        let document: Value = serde_json::from_str(page.split_once("\r\n\r\n").unwrap().1).unwrap();
        document["finished"] == 100
    });
    assert_eq!(requests(&gateway, "").len(), 16);
}

#[test]
fn a_refusal_is_found_by_its_reason() {
    let (ptu, standard) = (refusing(), serving());
    let text = format!(
        "listen = {{ address = \"127.0.0.1:0\", admin = \"127.0.0.1:0\" }}\nclients.open = true\n\
         [models.m]\nmax_wait = \"1s\"\n\
         ptu = [{{ name = \"a\", endpoint = \"{}\", key = \"env:AZURE_KEY\" }}]\n\
         standard = [{{ name = \"b\", endpoint = \"{}\", key = \"env:AZURE_KEY\" }}]\n",
        ptu.endpoint(),
        standard.endpoint()
    );
    let gateway = Gateway::start(&emulate::file("questions-reason/g.toml", &text));
    assert_eq!(gateway.chat("m", &[]).status(), 200);
    gateway.eventually(|gateway| requests(gateway, "?why=hint").len() == 1);
    assert_eq!(requests(&gateway, "?why=rate").len(), 1, "by what an attempt met");
    assert!(requests(&gateway, "?why=quota").is_empty());
}
