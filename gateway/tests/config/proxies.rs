//! Proxies of backends and of the environment: invalid ones are refused without being repeated.

use std::{fs, process::Command};

use super::{Folder, expect_each, file};

fn backend(proxy: &str) -> String {
    format!(
        "name = \"a\", endpoint = \"https://a.example\", key = \"env:EAST_KEY\", proxy = \"{proxy}\""
    )
}

#[test]
fn a_proxy_is_an_address_a_reference_or_none() {
    let folder = Folder::new();
    for proxy in ["none", "http://p:1", "https://p", "socks5://p:1", "p.example:3128", "env:PROXY"]
    {
        let output = folder.check(&file("", &backend(proxy), ""));
        assert!(output.status.success(), "{proxy}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let with_user = "http://me:canary-4fd1c0de@p:1";
    let told = "models.m.standard[0].proxy: contains a user; keep the whole URL out of this file, \
                as env:NAME or file:PATH";
    let scheme =
        "models.m.standard[0].proxy: has a scheme that is not supported; use http, https or socks5";
    let wrong = "models.m.standard[0].proxy: is not the address of a proxy; write it like http://proxy.example:3128";
    for (proxy, expected) in [
        (with_user, told),
        ("socks4://p:1", scheme),
        ("ftp://canary-4fd1c0de", scheme),
        ("http://p:1/path", wrong),
        ("http://p:canary-4fd1c0de", wrong),
        ("", wrong),
    ] {
        expect_each(&[("", &backend(proxy), "", expected)]);
    }
}

#[test]
fn one_server_is_reached_through_one_proxy() {
    let other = "models.n.standard = [{ name = \"b\", endpoint = \"https://A.example:443/\", \
                 key = \"env:EAST_KEY\", proxy = \"PROXY\" }]";
    expect_each(&[(
        "",
        &backend("http://p:1"),
        &other.replace("PROXY", "http://p:2"),
        "models.m.standard[0].proxy: differs from models.n.standard[0].proxy, which has the same server; use one proxy for both",
    )]);
    let same = file("", &backend("http://p:1"), &other.replace("PROXY", "http://p:1"));
    assert!(Folder::new().check(&same).status.success());
}

#[test]
fn a_variable_of_the_environment_that_cannot_be_used_is_a_problem() {
    let folder = Folder::new();
    fs::write(folder.0.join("c.toml"), file("", "", "")).expect("a file");
    for (name, value, is_good) in [
        ("HTTPS_PROXY", "ftp://me:canary@proxy.example", false),
        ("all_proxy", "http://", false),
        ("HTTP_PROXY", " ", true),
        ("https_proxy", "http://me:canary@proxy.example:3128", true),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_spillover"))
            .args(["check", "--config", "c.toml"])
            .current_dir(&folder.0)
            .env_clear()
            .envs([("EAST_KEY", "k"), (name, value)])
            .output()
            .expect("the binary runs");
        let told = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.success(), is_good, "{name}={value}: {told}");
        assert!(is_good || told.contains(&format!("{name}: of the environment ")), "{told}");
        assert!(!told.contains("canary"), "{told}");
    }
}
