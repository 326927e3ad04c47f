//! A fleet whose store takes tokens of Microsoft Entra ID as passwords.

use spillover_testing::redis::Server;

use crate::{
    emulate,
    entra::authority,
    fleet::{DOWN, UP, events, status},
    served::{Azure, Gateway},
};

#[test]
fn a_token_that_the_store_refuses_is_replaced_and_a_line_tells_of_each_change() {
    let Some(server) = Server::start(&[]) else { return };
    server.allow("token-2", &[]);
    let authority = authority(3_600);
    emulate::file("fleet-tokens/secret", "canary-secret");
    let azure = Azure::new("fleet-tokens");
    let text = format!(
        r#"
        listen = {{ address = "127.0.0.1:0", admin = "127.0.0.1:0" }}
        clients.open = true
        [entra]
        kind = "secret"
        tenant = "contoso"
        client_id = "client-1"
        secret = "file:secret"
        authority = "{}"
        [fleet]
        name = "prod"
        store = "{}"
        user = "spillover"
        auth = "entra"
        [models."gpt-4o"]
        spill_budget = {{ requests = 10, window = "1h" }}
        ptu = [{{ name = "ptu", endpoint = "{}", key = "env:AZURE_KEY" }}]
        standard = [{{ name = "sweden", endpoint = "{}", key = "env:AZURE_KEY" }}]
        "#,
        authority.endpoint(),
        server.url(),
        azure.endpoint(0),
        azure.endpoint(1),
    );
    let gateway = Gateway::start(&emulate::file("fleet-tokens/g.toml", &text));
    gateway.eventually(|gateway| status(gateway)["fleet"]["up"] == true);
    let asked = authority.asked();
    assert_eq!(asked.len(), 2, "one more after the refusal");
    for fetch in &asked {
        let form = String::from_utf8_lossy(&fetch.body);
        assert!(form.contains("scope=https%3A%2F%2Fredis.azure.com%2F.default"), "{form}");
    }
    assert_eq!((events(&gateway, DOWN).len(), events(&gateway, UP).len()), (1, 1));
    let reason = events(&gateway, DOWN)[0]["reason"].to_string();
    assert!(reason.contains("WRONGPASS"), "{reason}");
    let log = gateway.log();
    assert!(!log.contains("token-") && !log.contains("canary"), "{log}");
    assert!(!log.contains("rejected the access token"), "the store's own line tells it: {log}");
}
