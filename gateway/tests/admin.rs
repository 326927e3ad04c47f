//! Who may see the operators' pages, and which keys are not accepted.

use std::{fs, process::Command};

use crate::{
    emulate,
    served::{Answer, Gateway, OPERATOR, TEAM_A},
    witness::{Witness, serving},
};

fn gateway(name: &str, azure: &Witness, rest: &str) -> Gateway {
    let text = format!(
        "listen.address = \"127.0.0.1:0\"\n{rest}\n[[models.m.standard]]\nname = \"a\"\n\
         endpoint = \"{}\"\nkey = \"env:AZURE_KEY\"\n",
        azure.endpoint()
    );
    Gateway::start(&emulate::file(&format!("admin-{name}/g.toml"), &text))
}

fn get(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> Answer {
    gateway.ask("GET", path, headers, "")
}

const PAGES: [&str; 3] = ["/metrics", "/-/status", "/-/requests"];
const CLIENT: &str = "[clients.team-a]\nkeys = [\"env:TEAM_A_KEY\"]\n";
const WITH_OPERATOR: &str = "[clients.team-a]\nkeys = [\"env:TEAM_A_KEY\"]\n\
    [clients.prometheus]\nkeys = [\"env:OPERATOR_KEY\"]\nmodels = []\nmay = [\"operate\"]\n";

#[test]
fn nobody_without_leave_is_shown_what_is_for_operators() {
    let azure = serving();
    for (name, rest) in [("open", "clients.open = true"), ("keyed", CLIENT)] {
        let gateway = gateway(name, &azure, rest);
        for path in PAGES.into_iter().chain(["/metrics/", "/-/", "//metrics", "/-/status?x=1"]) {
            for headers in [&[][..], &[TEAM_A], &[OPERATOR]] {
                let page = get(&gateway, path, headers);
                assert_eq!(page.status(), 404, "{path} {page:?}");
            }
        }
        for path in ["/healthz", "/readyz"] {
            assert_eq!(get(&gateway, path, &[]).status(), 200);
        }
    }
}

#[test]
fn a_client_that_may_operate_is_shown_it_and_may_do_nothing_else() {
    let azure = serving();
    let gateway = gateway("operator", &azure, WITH_OPERATOR);
    let bearer = ("authorization", &*format!("Bearer {}", OPERATOR.1));
    for path in PAGES {
        for (headers, status) in
            [(&[][..], 401), (&[("api-key", "wrong")], 401), (&[TEAM_A], 403), (&[OPERATOR], 200)]
        {
            assert_eq!(get(&gateway, path, headers).status(), status, "{path} {headers:?}");
        }
        assert_eq!(get(&gateway, path, &[bearer]).status(), 200, "as a scraper sends it");
        let posted = gateway.ask("POST", path, &[OPERATOR], "");
        assert_eq!((posted.status(), posted.header("allow")), (405, Some("GET, HEAD")));
    }
    assert_eq!(gateway.chat("m", &[OPERATOR]).status(), 403);
    assert_eq!(gateway.chat("m", &[TEAM_A]).status(), 200);
    assert!(get(&gateway, "/metrics", &[OPERATOR]).0.contains("client=\"team-a\""));
}

#[test]
fn a_check_warns_where_nobody_is_shown_it() {
    let told = |rest: &str| {
        let text = format!(
            "{rest}\n[[models.m.standard]]\nname = \"a\"\nendpoint = \"https://a.example\"\n\
             key = \"env:AZURE_KEY\"\n"
        );
        let path = emulate::file("admin-check/g.toml", &text);
        let mut command = Command::new(env!("CARGO_BIN_EXE_spillover"));
        let command = command.args(["check", "--config", path.to_str().unwrap()]);
        let keys = [("TEAM_A_KEY", TEAM_A.1), ("OPERATOR_KEY", OPERATOR.1), ("AZURE_KEY", "k")];
        let output = command.envs(keys).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    for silent in [CLIENT, "clients.open = true"] {
        assert!(told(silent).contains("listen.admin: is missing, and no client may operate"));
        assert_eq!(told(&format!("listen.admin = \"127.0.0.1:9\"\n{silent}")), "");
    }
    assert_eq!(told(WITH_OPERATOR), "");
}

#[test]
fn a_key_that_anybody_could_guess_is_refused_at_the_start_and_at_a_reload() {
    let azure = serving();
    let path = emulate::file("admin-weak/key", "a-key-from-a-file-0001");
    let rest = "[clients.team-a]\nkeys = [\"file:key\"]\n";
    let gateway = gateway("weak", &azure, rest);
    let key = [("api-key", "a-key-from-a-file-0001")];
    assert_eq!(gateway.chat("m", &key).status(), 200);
    for (before, (weak, told)) in [
        ("abc", "is shorter than 12 characters"),
        ("", "is empty"),
        (" \n", "is empty"),
        ("change-me-please-now", "is a placeholder"),
        ("abcdefghijklm", "is a sequence"),
        ("my-api-key-0001", "is made of words that stand for a key"),
    ]
    .into_iter()
    .enumerate()
    {
        fs::write(&path, weak).unwrap();
        gateway.eventually(|gateway| {
            gateway.log().contains(told)
                && gateway.log().matches("clients.team-a.keys").count() > before
        });
        assert_eq!(gateway.chat("m", &key).status(), 200, "the last one stays");
        assert_eq!(gateway.chat("m", &[("api-key", weak.trim())]).status(), 401, "{weak:?}");
    }
    let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let text = format!("clients.a.keys = [\"sha256:{nothing}\"]\nmodels.m = {{}}\n");
    let config = emulate::file("admin-weak/nothing.toml", &text);
    let output = crate::started::ran(&["check", "--config", config.to_str().unwrap()]);
    let told = crate::started::stderr(&output);
    assert!(told.contains("clients.a.keys[0]: is the hash of nothing"), "{told}");
    assert!(!told.contains(nothing));
    emulate::file("admin-weak/same", "a-key-of-a-backend-0001");
    let text = "[clients.a]\nkeys = [\"file:same\"]\n[[models.m.standard]]\nname = \"e\"\n\
                endpoint = \"http://127.0.0.1:9\"\nkey = \"file:same\"\n";
    let config = emulate::file("admin-weak/same.toml", text);
    let output = crate::started::ran(&["check", "--config", config.to_str().unwrap()]);
    let told = crate::started::stderr(&output);
    assert!(told.contains("is the same key as that of a backend of models.m"), "{told}");
}
