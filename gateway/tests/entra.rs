//! Backends with `auth = "entra"`: when tokens are fetched, and where they are sent.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use crate::{
    emulate,
    served::Gateway,
    witness::{Asked, Witness, refusing, serving},
};

/// Takes a moment for each token, which is valid for this many seconds: `token-1`, `token-2`, ...
pub(crate) fn authority(lifetime: u64) -> Witness {
    let granted = AtomicUsize::new(0);
    Witness::new(move |_| {
        thread::sleep(Duration::from_millis(150));
        let number = granted.fetch_add(1, Ordering::Relaxed) + 1;
        let token = format!(
            r#"{{"token_type":"Bearer","expires_in":{lifetime},"access_token":"token-{number}"}}"#
        );
        (200, "content-type: application/json\r\n", token)
    })
}

/// `first` requires tokens, and `second`, which follows it, has a key.
fn gateway(name: &str, authority: &Witness, first: &Witness, second: &Witness) -> Gateway {
    emulate::file(&format!("{name}/secret"), "canary-secret");
    let text = format!(
        r#"
        [listen]
        address = "127.0.0.1:0"
        [clients]
        open = true
        [entra]
        kind = "secret"
        tenant = "contoso"
        client_id = "client-1"
        secret = "file:secret"
        authority = "{}"
        [[models.text.standard]]
        name = "first"
        endpoint = "{}"
        auth = "entra"
        priority = 1
        [[models.text.standard]]
        name = "second"
        endpoint = "{}"
        key = "env:AZURE_KEY"
        priority = 2
        "#,
        authority.endpoint(),
        first.endpoint(),
        second.endpoint(),
    );
    Gateway::start(&emulate::file(&format!("{name}/g.toml"), &text))
}

fn bearers(asked: &[Asked]) -> BTreeSet<&str> {
    asked.iter().map(|asked| asked.header("authorization").unwrap_or_default()).collect()
}

#[test]
fn many_waiters_share_one_fetch_and_the_token_goes_to_its_resource_only() {
    let (authority, first, second) = (authority(3_600), serving(), serving());
    let gateway = gateway("entra-many", &authority, &first, &second);
    assert!(authority.asked().is_empty(), "nothing is fetched before it is needed");
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                let own = [("authorization", "Bearer own"), ("api-key", "own")];
                assert_eq!(gateway.chat("text", &own).status(), 200);
            });
        }
    });
    let fetches = authority.asked();
    let [fetch] = &fetches[..] else { panic!("{fetches:?}") };
    assert_eq!(fetch.head[0], "POST /contoso/oauth2/v2.0/token HTTP/1.1");
    let form = String::from_utf8_lossy(&fetch.body);
    assert!(form.contains("client_secret=canary-secret"), "{form}");
    assert!(form.contains("scope=https%3A%2F%2Fcognitiveservices.azure.com%2F.default"), "{form}");

    let asked = first.asked();
    assert_eq!((asked.len(), bearers(&asked)), (20, BTreeSet::from(["Bearer token-1"])));
    assert!(asked.iter().all(|asked| asked.header("api-key").is_none()));
    assert!(second.asked().is_empty());
    assert!(!gateway.log().contains("token-1") && !gateway.log().contains("canary"));
}

#[test]
fn a_rejected_token_is_fetched_anew_once_for_all_and_the_requests_are_sent_again() {
    let first = Witness::new(|asked| match asked.header("authorization") {
        Some("Bearer token-1") => (401, "", r#"{"error":{"code":"invalid_token"}}"#.to_owned()),
        _ => (200, "content-type: application/json\r\n", "{}".to_owned()),
    });
    let (authority, second) = (authority(3_600), serving());
    let gateway = gateway("entra-rejected", &authority, &first, &second);
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                let answer = gateway.chat("text", &[]);
                assert_eq!(answer.header("x-spillover-backend"), Some("first"), "{answer:?}");
                assert_eq!(answer.status(), 200);
            });
        }
    });
    assert_eq!(authority.asked().len(), 2, "one more for all");
    assert_eq!(bearers(&first.asked()), BTreeSet::from(["Bearer token-1", "Bearer token-2"]));
    assert!(second.asked().is_empty());
    // The request log has the reason of the attempt that was made again.
    assert!(!gateway.log().contains("misconfigured: "), "{}", gateway.log());
}

#[test]
fn a_resource_that_rejects_every_token_is_misconfigured_and_no_token_is_fetched_for_each_request() {
    let first = Witness::new(|_| (401, "", "no such role".to_owned()));
    let (authority, second) = (authority(3_600), serving());
    let gateway = gateway("entra-role", &authority, &first, &second);
    for _ in 0..10 {
        assert_eq!(gateway.chat("text", &[]).header("x-spillover-backend"), Some("second"));
    }
    assert_eq!((authority.asked().len(), first.asked().len()), (2, 2));
    gateway.eventually(|gateway| gateway.log().contains("misconfigured: 401 Unauthorized"));
}

#[test]
fn a_backend_with_a_key_gets_no_token_when_one_with_a_token_refuses() {
    let (authority, first, second) = (authority(3_600), refusing(), serving());
    let gateway = gateway("entra-rotated", &authority, &first, &second);
    assert_eq!(gateway.chat("text", &[]).header("x-spillover-backend"), Some("second"));
    assert_eq!(bearers(&first.asked()), BTreeSet::from(["Bearer token-1"]));
    let asked = second.asked();
    assert_eq!(asked[0].header("api-key"), Some("azure-key"));
    assert_eq!(asked[0].header("authorization"), None);
}

#[test]
fn a_backend_without_a_token_is_passed_over_and_the_secret_stays_where_it_is() {
    let denial = r#"{"error":"invalid_client","error_description":"not canary-secret"}"#;
    let authority = Witness::new(move |_| (401, "", denial.to_owned()));
    let (first, second) = (serving(), serving());
    let gateway = gateway("entra-denied", &authority, &first, &second);
    let answer = gateway.chat("text", &[]);
    assert_eq!(answer.header("x-spillover-backend"), Some("second"), "{answer:?}");
    assert!(first.asked().is_empty());
    gateway.eventually(|gateway| gateway.log().contains("no access token"));
    assert!(!gateway.log().contains("canary-secret"), "{}", gateway.log());
    assert!(!answer.0.contains("canary-secret"), "{answer:?}");
}

#[test]
fn a_token_is_fetched_anew_ahead_of_its_expiry_while_the_old_one_serves() {
    let lifetime = 5;
    let (authority, first, second) = (authority(lifetime), serving(), serving());
    let gateway = gateway("entra-refreshed", &authority, &first, &second);
    assert_eq!(gateway.chat("text", &[]).status(), 200);
    thread::sleep(Duration::from_secs(4));
    assert_eq!(authority.asked().len(), 1, "it is asked for again in the last tenth");
    for _ in 0..100 {
        assert_eq!(gateway.chat("text", &[]).status(), 200);
        if bearers(&first.asked()).len() > 1 {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    let fetches = authority.asked();
    let apart = fetches[1].at - fetches[0].at;
    assert!(apart < Duration::from_secs(lifetime), "{apart:?}");
    let asked = first.asked();
    let during = asked.iter().filter(|asked| asked.at > fetches[1].at);
    let is_old = |asked: &&Asked| asked.header("authorization") == Some("Bearer token-1");
    assert!(during.filter(is_old).count() > 0, "nobody waits for the new one");
    assert_eq!(bearers(&asked), BTreeSet::from(["Bearer token-1", "Bearer token-2"]));
    assert!(second.asked().is_empty());
}
