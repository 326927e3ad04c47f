//! Tokens and certificates of clients: invalid settings, and settings without effect.

use super::{Folder, expect_each};

const TLS: &str = "listen.tls = { certificates = \"tls/cert.pem\", key = \"file:tls/key.pem\"";
const CRL: &str = "client_crl = \"tls/cert.pem\"";

fn expect(rest: &str, expected: &str) {
    expect_each(&[("", "", rest, expected)]);
}

#[test]
fn an_issuer_of_tokens_is_a_tenant_by_its_id_or_an_address_with_tls() {
    let with = |text: &str| format!("tokens = {{ audience = \"api://x\"{text} }}");
    let id = "6f6e2c3b-0b4e-4d8f-9a44-1c8f9d1a2b3c";
    for (text, expected) in [
        ("", "tokens: names no issuer; add tenant = \"ID\", or issuer = \"https://...\""),
        (
            ", tenant = \"contoso.onmicrosoft.com\"",
            "tokens.tenant: \"contoso.onmicrosoft.com\" is not the id of a tenant; `az account show` has it",
        ),
        (
            ", issuer = \"http://127.0.0.1:1\"",
            "tokens.issuer: would let anyone on the network issue tokens; use https://, or allow_http = true",
        ),
        (
            ", issuer = \"https://a.example\", tenant = \"TENANT\"",
            "tokens.issuer: cannot be combined with `tenant`; remove one of the two",
        ),
        (
            ", issuer = \"https://a.example\", authority = \"https://b.example\"",
            "tokens.authority: belongs to `tenant`; remove it, the issuer says where it is",
        ),
    ] {
        expect(&with(&text.replace("TENANT", id)), expected);
    }
    expect(
        &format!("tokens = {{ tenant = \"{id}\" }}"),
        "tokens.audience: is missing; name the application: \"api://NAME\", its id, or both in a list",
    );
    expect(
        &format!("tokens = {{ tenant = \"{id}\", audience = [] }}"),
        "tokens.audience: is empty, so every token would be refused; name the application",
    );
}

#[test]
fn a_client_has_keys_or_something_else_to_be_known_by_that_is_its_own() {
    let tokens = "tokens = { issuer = \"https://a.example\", audience = \"x\" }\n";
    expect(
        "clients.a = { models = [] }",
        "clients.a.keys: is missing; add keys = [\"sha256:...\"] or [\"env:NAME\"]",
    );
    expect(
        "clients.a = { roles = [\"A\"] }",
        "clients.a.roles: would never match; add [tokens] with the issuer",
    );
    expect(
        "clients.a = { certificates = [\"a.example\"] }",
        "clients.a.certificates: would never match; add client_ca to listen.tls",
    );
    expect(
        &format!(
            "{tokens}clients.a = {{ roles = [\"A\"] }}\nclients.b = {{ roles = [\"B\", \"A\"] }}"
        ),
        "clients.b.roles[1]: is clients.a.roles[0] as well; give it to one client only",
    );
    expect(
        &format!(
            "{TLS}, client_ca = \"tls/ca.pem\" }}\nclients.a = {{ certificates = [\"A.example\", \"a b\"] }}\n\
             clients.b = {{ certificates = [\"a.EXAMPLE\"] }}"
        ),
        "clients.a.certificates[1]: \"a b\" is not a name of a certificate; use a URI, a DNS name, or \"CN=NAME\"\n\
         clients.b.certificates[0]: is clients.a.certificates[0] as well; give it to one client only",
    );
}

#[test]
fn authorities_of_clients_and_lists_of_revoked_certificates_are_tried_out() {
    expect(
        &format!("{TLS}, client_ca = \"tls/key.pem\" }}"),
        "listen.tls.client_ca: contains no certificate; write it as PEM, with BEGIN CERTIFICATE",
    );
    expect(
        &format!("{TLS}, client_ca = \"tls/ca.pem\", {CRL} }}"),
        "listen.tls.client_crl: cannot be used (no list of revoked certificates in PEM); write it as PEM",
    );
    expect(
        &format!("{TLS}, {CRL}, client_required = true }}"),
        "listen.tls.client_crl: has no effect without client_ca; add it, or remove this\n\
         listen.tls.client_required: has no effect without client_ca; add it, or remove this",
    );
}

#[test]
fn a_source_of_identities_that_no_client_has_does_nothing_and_is_told() {
    let folder = Folder::new();
    let model = "[[models.m.standard]]\nname = \"a\"\nendpoint = \"https://a.example\"\nkey = \"env:EAST_KEY\"\n";
    let tokens = "[tokens]\nissuer = \"https://a.example\"\naudience = \"x\"\n";
    let tls = format!("{TLS}, client_ca = \"tls/ca.pem\"");
    for (text, told) in [
        (format!("clients.open = true\n{tokens}{model}"), Some("tokens: has no effect")),
        (format!("{tokens}{model}[clients.a]\nsubjects = [\"x\"]"), None),
        (format!("clients.open = true\n{tls} }}\n{model}"), Some("client_ca: has no effect")),
        (format!("clients.open = true\n{tls}, client_required = true }}\n{model}"), None),
        (format!("{tls} }}\n{model}[clients.a]\ncertificates = [\"spiffe://x/a\"]"), None),
    ] {
        let output = folder.check(&format!("listen.admin = \"127.0.0.1:9\"\n{text}"));
        let warnings = String::from_utf8(output.stderr).expect("text");
        assert!(output.status.success(), "{text}\n{warnings}");
        match told {
            Some(told) => assert!(warnings.contains(told), "{text}\n{warnings}"),
            None => assert_eq!(warnings, "", "{text}"),
        }
    }
}
