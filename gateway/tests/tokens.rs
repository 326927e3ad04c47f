//! Clients that send a token of an issuer instead of a key.

mod issuer;

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::hmac;
use serde_json::{Value, json};

use self::issuer::{AUDIENCE, Issuer, Signer, TENANT, b64, changed, seconds};
use crate::{
    emulate,
    served::{Answer, Gateway},
    witness::{Witness, serving},
};

fn config(issuer: &Issuer, azure: &Witness) -> String {
    format!(
        r#"
        [listen]
        address = "127.0.0.1:0"
        [tokens]
        tenant = "{TENANT}"
        authority = "{}"
        audience = ["{AUDIENCE}", "b1a7c3c6-0000-4000-8000-000000000000"]
        allow_http = true
        [clients.team-a]
        keys = ["env:TEAM_B_KEY"]
        roles = ["TeamA"]
        may = ["trace"]
        [clients.team-b]
        roles = ["TeamB"]
        groups = ["group-b"]
        models = ["other"]
        [clients.robot]
        subjects = ["object-robot"]
        requests_per_second = 0.01
        [[models.text.standard]]
        name = "a"
        endpoint = "{}"
        key = "env:AZURE_KEY"
        [[models.other.standard]]
        name = "a"
        endpoint = "{}"
        key = "env:AZURE_KEY"
        "#,
        issuer.witness.endpoint(),
        azure.endpoint(),
        azure.endpoint(),
    )
}

struct Scene {
    issuer: Issuer,
    signer: Signer,
    gateway: Gateway,
    azure: Witness,
    path: std::path::PathBuf,
}

impl Scene {
    fn new(name: &str) -> Self {
        Self::of(name, Signer::rsa())
    }

    fn of(name: &str, signer: Signer) -> Self {
        let issuer =
            Issuer::new(&[json!({ "kty": "oct", "kid": "odd", "k": "AAAA" }), signer.jwk("k1")]);
        let azure = serving();
        let path = emulate::file(&format!("tokens-{name}/g.toml"), &config(&issuer, &azure));
        let gateway = Gateway::start(&path);
        Self { issuer, signer, gateway, azure, path }
    }

    /// A token whose claims differ in these.
    fn token(&self, changes: &Value) -> String {
        self.signer.token("k1", &changed(self.issuer.claims(), changes))
    }

    fn chat(&self, token: &str) -> Answer {
        self.gateway.chat("text", &[("authorization", &format!("Bearer {token}"))])
    }

    /// The token is refused, no part of it is shown, and the answer states the reason.
    fn refused(&self, token: &str, reason: &str) {
        let answer = self.chat(token);
        assert_eq!(answer.status(), 401, "{reason}: {answer:?}");
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(challenge.starts_with("Bearer error=\"invalid_token\""), "{answer:?}");
        assert!(challenge.contains(reason), "{reason}: {answer:?}");
        let parts = token.split('.').filter(|part| part.len() > 20);
        let log = self.gateway.log();
        for part in parts {
            assert!(!answer.0.contains(part) && !log.contains(part), "{answer:?}");
        }
    }
}

fn client_of(gateway: &Gateway, number: usize) -> String {
    gateway.eventually(|gateway| finished(gateway).len() >= number);
    finished(gateway)[number - 1].clone()
}

/// The clients of the requests so far.
fn finished(gateway: &Gateway) -> Vec<String> {
    let log = gateway.log();
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter_map(|event| Some(event["client"].as_str()?.to_owned())).collect()
}

#[test]
fn a_token_lets_in_whom_its_role_names_and_goes_no_further() {
    for signer in [Signer::rsa(), Signer::ec()] {
        let name = if matches!(signer, Signer::Rsa(_)) { "rsa" } else { "ec" };
        let scene = Scene::of(name, signer);
        assert!(scene.issuer.witness.asked().is_empty(), "nothing is fetched before it is needed");
        let token = scene.token(&json!({}));
        for headers in [
            [("authorization", format!("Bearer {token}"))],
            [("authorization", format!("bearer  {token} "))],
            [("api-key", token.clone())],
        ] {
            let [(header, value)] = &headers;
            let answer = scene.gateway.chat("text", &[(header, value), ("x-spillover-trace", "1")]);
            assert_eq!(answer.status(), 200, "{answer:?}");
            assert!(answer.header("x-spillover-trace").is_some(), "what the client may, it may");
        }
        assert_eq!(client_of(&scene.gateway, 3), "team-a");
        assert_eq!(scene.issuer.fetches(), 1);
        for asked in scene.azure.asked() {
            assert!(!asked.head.iter().any(|line| line.contains(&token)), "{asked:?}");
            assert_eq!(asked.header("api-key"), Some("azure-key"));
        }
        assert!(!scene.gateway.log().contains(&token[..30]), "{}", scene.gateway.log());
    }
}

#[test]
fn a_static_key_works_beside_tokens() {
    let scene = Scene::new("key");
    for (header, key) in
        [("authorization", "Bearer a-key-of-team-b-0001"), ("api-key", "a-key-of-team-b-0001")]
    {
        assert_eq!(scene.gateway.chat("text", &[(header, key)]).status(), 200);
    }
    let answer = scene.gateway.chat("text", &[("authorization", "Bearer another-key")]);
    assert_eq!((answer.status(), answer.header("www-authenticate")), (401, Some("Bearer")));
    assert!(scene.issuer.witness.asked().is_empty(), "a key is no token");
}

#[test]
fn limits_and_permissions_are_those_of_the_client_that_a_token_is_mapped_to() {
    let scene = Scene::new("limits");
    // Its group authenticates it, but does not allow this model.
    let by_group = scene.token(&json!({ "roles": null, "groups": ["nobody", "group-b"] }));
    assert_eq!(scene.chat(&by_group).status(), 403);
    let other = scene.gateway.chat("other", &[("authorization", &format!("Bearer {by_group}"))]);
    assert_eq!(other.status(), 200);
    // Its rate is the client's, whichever token it sends.
    let robot = |iat: u64| {
        let changes = json!({ "roles": null, "oid": "object-robot", "iat": iat });
        scene.chat(&scene.token(&changes)).status()
    };
    assert_eq!([robot(1), robot(2)], [200, 429]);
}

#[test]
fn of_several_clients_the_first_in_the_file_is_meant() {
    let scene = Scene::new("several");
    for roles in [json!(["TeamB", "TeamA"]), json!(["TeamA", "TeamB"])] {
        let token =
            scene.token(&json!({ "roles": roles, "groups": ["group-b"], "oid": "object-robot" }));
        assert_eq!(scene.chat(&token).status(), 200);
    }
    assert_eq!(client_of(&scene.gateway, 2), "team-a");
    // A single role may be written without a list.
    assert_eq!(scene.chat(&scene.token(&json!({ "roles": "TeamA" }))).status(), 200);
}

#[test]
fn both_of_entras_issuers_and_both_of_its_audiences_are_accepted() {
    let scene = Scene::new("issuers");
    let first = format!("https://sts.windows.net/{TENANT}/");
    for changes in [
        json!({ "iss": first, "ver": "1.0", "appid": "an-app" }),
        json!({ "aud": "b1a7c3c6-0000-4000-8000-000000000000" }),
        json!({ "aud": ["elsewhere", AUDIENCE] }),
        json!({ "exp": seconds() - 20 }),
        json!({ "nbf": seconds() + 20 }),
        json!({ "nbf": null, "iat": null, "oid": null }),
    ] {
        assert_eq!(scene.chat(&scene.token(&changes)).status(), 200, "{changes}");
    }
}

#[test]
fn a_token_that_is_not_for_this_gateway_is_refused_and_told_why() {
    let scene = Scene::new("wrong");
    let another = "11111111-2222-4333-8444-555555555555";
    for (changes, reason) in [
        (json!({ "iss": format!("https://sts.windows.net/{another}/") }), "another issuer"),
        (json!({ "iss": scene.issuer.name() + "/" }), "another issuer"),
        (json!({ "iss": "https://login.microsoftonline.com/common/v2.0" }), "another issuer"),
        (json!({ "iss": [scene.issuer.name()] }), "another issuer"),
        (json!({ "iss": [scene.issuer.name(), "https://evil.example"] }), "another issuer"),
        (json!({ "iss": null }), "lacks exp, iss or aud"),
        (json!({ "iss": 1 }), "lacks exp, iss or aud"),
        (json!({ "aud": "https://graph.microsoft.com" }), "another audience"),
        (json!({ "aud": [] }), "another audience"),
        (json!({ "aud": null }), "lacks exp, iss or aud"),
        (json!({ "tid": another }), "another tenant"),
        (json!({ "tid": null }), "another tenant"),
        (json!({ "exp": seconds() - 3_600 }), "expired"),
        (json!({ "exp": seconds() - 90 }), "expired"),
        (json!({ "exp": "later" }), "lacks exp, iss or aud"),
        (json!({ "exp": -1 }), "lacks exp, iss or aud"),
        (json!({ "exp": null }), "lacks exp, iss or aud"),
        (json!({ "nbf": seconds() + 3_600 }), "not valid yet"),
    ] {
        scene.refused(&scene.token(&changes), reason);
    }
    assert_eq!(scene.chat(&scene.token(&json!({}))).status(), 200);
    assert_eq!(scene.azure.asked().len(), 1);
    assert_eq!(scene.issuer.fetches(), 1);
}

#[test]
fn a_token_that_nobody_signed_as_it_stands_is_refused() {
    let scene = Scene::new("unsigned");
    let good = scene.token(&json!({}));
    let [_, claims, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!() };
    let head = |algorithm: &str| b64(json!({ "alg": algorithm, "kid": "k1" }).to_string());
    for algorithm in ["none", "None", "NONE", ""] {
        for signature in ["", signature] {
            scene.refused(
                &format!("{}.{claims}.{signature}", head(algorithm)),
                "not an RFC 7519 token",
            );
        }
    }
    // With public knowledge: the modulus, or the whole published key.
    let jwk = scene.signer.jwk("k1");
    let modulus = BASE64_URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap();
    for secret in [modulus, jwk.to_string().into_bytes(), vec![0; 3]] {
        for id in ["k1", "odd"] {
            let head = json!({ "alg": "HS256", "kid": id }).to_string();
            let text = format!("{}.{claims}", b64(head));
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), text.as_bytes());
            let told = if id == "k1" { "does not match its key" } else { "unknown to the issuer" };
            scene.refused(&format!("{text}.{}", b64(tag)), told);
        }
    }
    // Another key with the right id, other claims, a truncated signature, another algorithm.
    let stranger = Signer::ec().token("k1", &scene.issuer.claims());
    scene.refused(&stranger, "does not match its key");
    let raised = b64(changed(scene.issuer.claims(), &json!({ "roles": ["Admin"] })).to_string());
    let first = good.split('.').next().unwrap();
    scene.refused(&format!("{first}.{raised}.{signature}"), "signature is wrong");
    scene.refused(&format!("{first}.{claims}.{}", &signature[..40]), "signature is wrong");
    scene.refused(&format!("{first}.{claims}."), "signature is wrong");
    scene.refused(&format!("{}.{claims}.{signature}", head("RS512")), "signature is wrong");
    scene.refused(&format!("{}.{claims}.{signature}", head("ES256")), "does not match its key");
    for odd in [format!("{good}."), format!("{first}.{claims}"), "ey.a.b".into(), "eyJ.".into()] {
        scene.refused(&odd, "not an RFC 7519 token");
    }
    let head = json!({ "alg": "RS512", "kid": "k1" });
    assert_eq!(scene.chat(&scene.signer.sign(&head, &scene.issuer.claims())).status(), 200);
    let crit = json!({ "alg": "RS256", "kid": "k1", "crit": ["exp"], "exp": 1 });
    scene.refused(&scene.signer.sign(&crit, &scene.issuer.claims()), "not an RFC 7519 token");
    let own_key = json!({ "alg": "ES256", "kid": "mine", "jwk": Signer::ec().jwk("mine") });
    scene.refused(&Signer::ec().sign(&own_key, &scene.issuer.claims()), "unknown to the issuer");
}

#[test]
fn unknown_keys_cost_one_fetch_however_many_tokens_name_them() {
    let scene = Scene::new("flood");
    scene.refused(
        &scene.signer.sign(&json!({ "alg": "RS256" }), &scene.issuer.claims()),
        "no key id",
    );
    assert_eq!(scene.issuer.fetches(), 0, "without an id there is nothing to look for");
    thread::scope(|scope| {
        for thread in 0..8 {
            let scene = &scene;
            scope.spawn(move || {
                for number in 0..10 {
                    let id = format!("unknown-{thread}-{number}");
                    scene.refused(
                        &scene.signer.token(&id, &scene.issuer.claims()),
                        "unknown to the issuer",
                    );
                }
            });
        }
    });
    assert_eq!(scene.issuer.fetches(), 1);
    assert_eq!(scene.chat(&scene.token(&json!({}))).status(), 200);
    assert_eq!(scene.issuer.fetches(), 1);
}

#[test]
fn a_good_token_without_a_client_is_told_so_and_of_groups_that_were_left_out() {
    let scene = Scene::new("nobody");
    for (changes, told) in [
        (json!({ "roles": ["TeamC", "teama", 1, null] }), "No client"),
        (json!({ "roles": null, "groups": { "group-b": true } }), "No client"),
        (json!({ "roles": null, "hasgroups": true }), "leaves out its groups"),
        (json!({ "roles": null, "_claim_names": { "groups": "src1" } }), "leaves out its groups"),
    ] {
        let answer = scene.chat(&scene.token(&changes));
        assert_eq!(answer.status(), 403, "{answer:?}");
        assert!(answer.0.contains(told), "{answer:?}");
        let challenge = answer.header("www-authenticate");
        assert_eq!(challenge, Some("Bearer error=\"insufficient_scope\""));
    }
    // With a role, the groups do not matter.
    assert_eq!(scene.chat(&scene.token(&json!({ "hasgroups": true }))).status(), 200);
    assert_eq!(scene.azure.asked().len(), 1);
}

#[test]
fn a_huge_token_is_refused_before_anything_is_done_with_it() {
    let scene = Scene::new("huge");
    scene.refused(&scene.token(&json!({ "filler": "x".repeat(30_000) })), "longer than");
    assert_eq!(scene.issuer.fetches(), 0);
    let groups: Vec<String> = (0..200).map(|number| format!("{number:036}")).collect();
    assert_eq!(scene.chat(&scene.token(&json!({ "groups": groups }))).status(), 200);
}

#[test]
fn the_last_keys_stay_when_the_issuer_is_down_and_a_reload_keeps_them() {
    let scene = Scene::new("down");
    assert_eq!(scene.chat(&scene.token(&json!({}))).status(), 200);
    scene.issuer.keys.lock().unwrap().0 = 500;
    let text = config(&scene.issuer, &scene.azure).replace("[\"TeamA\"]", "[\"TeamA\", \"TeamC\"]");
    std::fs::write(&scene.path, text).unwrap();
    let token = scene.token(&json!({ "roles": ["TeamC"] }));
    scene.gateway.eventually(|_| scene.chat(&token).status() == 200);
    assert_eq!(scene.issuer.fetches(), 1);
}

#[test]
fn another_provider_is_known_by_its_address_and_has_subjects_of_its_own() {
    let signer = Signer::ec();
    let issuer = Issuer::new(&[signer.jwk("k1")]);
    let tenant = format!("tenant = \"{TENANT}\"");
    let authority = format!("authority = \"{}\"", issuer.witness.endpoint());
    let text = config(&issuer, &serving())
        .replace(&tenant, &format!("issuer = \"{}\"", issuer.name()))
        .replace(&authority, "");
    let gateway = Gateway::start(&emulate::file("tokens-provider/g.toml", &text));
    let status = |changes: Value| {
        let claims = changed(issuer.claims(), &changes);
        let bearer = format!("Bearer {}", signer.token("k1", &claims));
        gateway.chat("text", &[("authorization", &bearer)]).status()
    };
    assert_eq!(status(json!({ "tid": null, "roles": null, "sub": "object-robot" })), 200);
    // There, `oid` cannot be trusted, and the issuer of Entra's version 1.0 is another one.
    assert_eq!(status(json!({ "roles": null, "oid": "object-robot" })), 403);
    assert_eq!(status(json!({ "iss": format!("https://sts.windows.net/{TENANT}/") })), 401);
}

#[test]
fn another_issuer_or_audience_takes_effect_by_a_reload() {
    let scene = Scene::new("reload");
    assert_eq!(scene.chat(&scene.token(&json!({}))).status(), 200);
    let next = Issuer::new(&[Signer::rsa().jwk("k2")]);
    let text = config(&next, &scene.azure).replace(AUDIENCE, "api://next");
    std::fs::write(&scene.path, text).unwrap();
    let claims = changed(next.claims(), &json!({ "aud": "api://next" }));
    let token = scene.signer.token("k2", &claims);
    scene.gateway.eventually(|_| scene.chat(&token).status() == 200);
    scene.refused(&scene.token(&json!({})), "unknown to the issuer");
}

#[test]
fn an_issuer_that_was_never_there_is_no_reason_to_refuse_for_good() {
    for (name, status, keys) in [
        ("error", 503, "{}".to_owned()),
        ("html", 200, "<html><body>Sign in</body></html>".to_owned()),
        ("empty", 200, r#"{"keys":[]}"#.to_owned()),
        ("endless", 200, format!("{{\"keys\":[{}", " ".repeat(5 << 20))),
    ] {
        let scene = Scene::new(&format!("absent-{name}"));
        *scene.issuer.keys.lock().unwrap() = (status, keys);
        assert_eq!(
            scene.gateway.chat("text", &[("api-key", "a-key-of-team-b-0001")]).status(),
            200
        );
        let answer = scene.chat(&scene.token(&json!({})));
        assert_eq!(answer.status(), 503, "{name}: {answer:?}");
        assert_eq!(answer.header("retry-after"), Some("2"));
        let told = "the keys of the token issuer were not fetched";
        scene.gateway.eventually(|gateway| gateway.log().contains(told));
        for _ in 0..10 {
            assert_eq!(scene.chat(&scene.token(&json!({}))).status(), 503);
        }
        let asked = scene.issuer.witness.asked().len();
        assert!(asked <= 4, "{name}: {asked}");
        scene.issuer.publish(&[scene.signer.jwk("k1")]);
        scene.gateway.eventually(|_| scene.chat(&scene.token(&json!({}))).status() == 200);
    }
}

#[test]
fn a_slow_issuer_holds_up_nobody_who_has_a_key() {
    let signer = Signer::rsa();
    let slow = Witness::new(|_| {
        thread::sleep(Duration::from_secs(3));
        (500, "", String::new())
    });
    let azure = serving();
    let issuer = Issuer { witness: slow, keys: Default::default() };
    let path = emulate::file("tokens-slow/g.toml", &config(&issuer, &azure));
    let gateway = Gateway::start(&path);
    let token = signer.token("k1", &issuer.claims());
    thread::scope(|scope| {
        let bearer = format!("Bearer {token}");
        let gateway = &gateway;
        let waiting =
            scope.spawn(move || gateway.chat("text", &[("authorization", &bearer)]).status());
        for _ in 0..5 {
            assert_eq!(gateway.chat("text", &[("api-key", "a-key-of-team-b-0001")]).status(), 200);
        }
        assert!(!waiting.is_finished());
        assert_eq!(waiting.join().unwrap(), 503);
    });
}

#[test]
fn few_tokens_wait_for_a_slow_issuer_and_the_others_are_asked_to_come_again() {
    let signer = Signer::rsa();
    let slow = Witness::new(|_| {
        thread::sleep(Duration::from_secs(4));
        (500, "", String::new())
    });
    let issuer = Issuer { witness: slow, keys: Default::default() };
    let path = emulate::file("tokens-flood/g.toml", &config(&issuer, &serving()));
    let gateway = Gateway::start(&path);
    let request = format!(
        "POST /openai/deployments/text/chat/completions HTTP/1.1\r\nhost: x\r\n\
         authorization: Bearer {}\r\ncontent-length: 2\r\n\r\n{{}}",
        signer.token("k1", &issuer.claims())
    );
    let streams = (0..300).map(|_| {
        let mut stream = TcpStream::connect(gateway.address()).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        stream
    });
    let mut streams = streams.collect::<Vec<_>>();
    thread::sleep(Duration::from_millis(300));
    let mut refusals = Vec::new();
    let mut buffer = [0; 4_096];
    for stream in &mut streams {
        if let Ok(length) = stream.read(&mut buffer) {
            refusals.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
    }
    let waiting = 300 - refusals.len();
    assert!((1..=100).contains(&waiting), "{waiting} wait");
    for refusal in refusals {
        assert!(refusal.starts_with("HTTP/1.1 503 "), "{refusal}");
        assert!(refusal.contains("\r\nretry-after: 2\r\n"), "{refusal}");
    }
    assert_eq!(gateway.chat("text", &[("api-key", "a-key-of-team-b-0001")]).status(), 200);
}
