//! Backends that are unreachable for a moment.

use std::{
    net::{SocketAddr, TcpListener},
    thread,
    time::Duration,
};

use crate::{
    emulate,
    served::Gateway,
    steering::{CHAT, JSON, gateway},
    witness::{Witness, serving},
};

/// An address without a listener so far.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn a_backend_that_restarts_costs_no_request_even_where_it_is_the_only_one() {
    for (name, tier, wait, expected) in [
        ("standard", "standard", "", 200),
        ("ptu", "ptu", "", 200),
        ("impatient", "standard", "max_wait = \"0s\"", 502),
    ] {
        let address = nobody();
        let text = format!(
            "listen.address = \"127.0.0.1:0\"\nclients.open = true\n[models.m]\n{wait}\n\
             [[models.m.{tier}]]\nname = \"east\"\nendpoint = \"http://{address}\"\n\
             key = \"env:AZURE_KEY\"\n"
        );
        let gateway = Gateway::start(&emulate::file(&format!("restarts-{name}/g.toml"), &text));
        let restarting = thread::spawn(move || {
            thread::sleep(Duration::from_millis(300));
            Witness::on(address, |_| (200, JSON, CHAT.to_owned()))
        });
        assert_eq!(gateway.chat("m", &[]).status(), expected, "{name}");
        restarting.join().unwrap();
    }
}

#[test]
fn a_backend_that_is_back_is_used_before_its_first_answer_has_come() {
    let (address, sweden) = (nobody(), serving());
    let gateway = gateway("back", [&*format!("http://{address}"), sweden.endpoint()], "", "");
    for _ in 0..3 {
        assert_eq!(gateway.chat("gpt-4o", &[]).header("x-spillover-backend"), Some("sweden"));
    }
    let east = Witness::on(address, |_| {
        thread::sleep(Duration::from_secs(2));
        (200, JSON, CHAT.to_owned())
    });
    thread::sleep(Duration::from_millis(1_100));
    thread::scope(|scope| {
        let asking: Vec<_> = (0..3)
            .map(|_| {
                thread::sleep(Duration::from_millis(200));
                scope.spawn(|| gateway.chat("gpt-4o", &[]))
            })
            .collect();
        for asking in asking {
            let answer = asking.join().unwrap();
            assert_eq!(answer.header("x-spillover-backend"), Some("east"), "{answer:?}");
        }
    });
    assert_eq!(east.asked().len(), 3);
}
