//! Waits in every case where waiting helps: for a single tier, for several PTUs, for the first to
//! reopen.

use std::{
    sync::{Arc, OnceLock},
    thread,
    time::{Duration, Instant},
};

use crate::{
    emulate,
    served::{Answer, Gateway},
    steering::status,
    witness::{Witness, now},
};

/// A backend that refuses until this long after its first request, with the remaining time as hint.
fn closed_for(ms: u64) -> Witness {
    let first = OnceLock::new();
    Witness::new(move |_| {
        let since: &Instant = first.get_or_init(now);
        match Duration::from_millis(ms).checked_sub(since.elapsed()) {
            None => (200, "content-type: application/json\r\n", CHAT.to_owned()),
            Some(left) => {
                let hint = format!("retry-after-ms: {}\r\n", left.as_millis() + 1);
                (429, Box::leak(hint.into_boxed_str()), String::new())
            }
        }
    })
}

/// A gateway in front of PTUs and Standard backends, with `settings` among those of the model.
fn gateway(name: &str, ptus: &[&Witness], standards: &[&Witness], settings: &str) -> Gateway {
    let mut text = format!(
        "listen.address = \"127.0.0.1:0\"\nlisten.admin = \"127.0.0.1:0\"\nclients.open = true\n\
         [classes.hasty]\nmax_wait = \"0s\"\n\
         [classes.batch]\nrank = 1\nmax_wait = \"30s\"\nspill = false\n\
         [models.\"gpt-4o\"]\n{settings}\n"
    );
    for (tier, backends) in [("ptu", ptus), ("standard", standards)] {
        for (index, backend) in backends.iter().enumerate() {
            text += &format!(
                "[[models.\"gpt-4o\".{tier}]]\nname = \"{tier}-{index}\"\nendpoint = \"{}\"\n\
                 key = \"env:AZURE_KEY\"\npriority = {}\n",
                backend.endpoint(),
                index + 1
            );
        }
    }
    Gateway::start(&emulate::file(&format!("waiting-{name}/g.toml"), &text))
}

fn ask(gateway: &Gateway, headers: &[(&str, &str)]) -> (Answer, Duration) {
    let start = now();
    (gateway.chat("gpt-4o", headers), start.elapsed())
}

/// Asserts that a request waits for this long, and which backend then serves it.
#[track_caller]
fn served_after(gateway: &Gateway, headers: &[(&str, &str)], ms: u64, backend: &str) {
    let (answer, took) = ask(gateway, headers);
    assert_eq!((answer.status(), answer.header("x-spillover-backend")), (200, Some(backend)));
    let least = Duration::from_millis(ms);
    assert!((least..least + Duration::from_secs(2)).contains(&took), "{took:?}, not {ms} ms");
    let decision = answer.header("x-spillover-decision").unwrap();
    assert!(decision.contains("waited="), "{decision}");
}

#[track_caller]
fn refused_at_once(gateway: &Gateway, headers: &[(&str, &str)]) -> Answer {
    let (answer, took) = ask(gateway, headers);
    assert_eq!(answer.status(), 429, "{answer:?}");
    assert!(took < Duration::from_millis(250), "{took:?}");
    answer
}

#[test]
fn a_ptu_alone_is_waited_for() {
    let ptu = closed_for(43);
    let gateway = gateway("ptu", &[&ptu], &[], "");
    served_after(&gateway, &[], 30, "ptu-0");
    // The gate sends half a round trip early, and may be too early.
    assert!(ptu.asked().len() <= 4);
    assert_eq!(status(&gateway)["models"]["gpt-4o"]["gate"]["mode"], "adaptive");
}

#[test]
fn standard_alone_is_waited_for_and_shown_to_be() {
    let standard = closed_for(600);
    let gateway = Arc::new(gateway("standard", &[], &[&standard], ""));
    let waiting = {
        let gateway = Arc::clone(&gateway);
        thread::spawn(move || served_after(&gateway, &[], 500, "standard-0"))
    };
    standard.wait_for(|asked| !asked.is_empty());
    gateway.eventually(|gateway| status(gateway)["models"]["gpt-4o"]["standard_waiting"] == 1);
    waiting.join().unwrap();
    assert_eq!(status(&gateway)["models"]["gpt-4o"]["standard_waiting"], 0);
    assert_eq!(standard.asked().len(), 2);
}

#[test]
fn where_both_tiers_are_closed_the_first_that_reopens_serves() {
    for (name, ptu, standard, backend) in
        [("standard-first", 10_000, 400, "standard-0"), ("ptu-first", 400, 10_000, "ptu-0")]
    {
        let (ptu, standard) = (closed_for(ptu), closed_for(standard));
        let gateway = gateway(name, &[&ptu], &[&standard], "");
        served_after(&gateway, &[], 300, backend);
        assert!(ptu.asked().len() <= 4 && standard.asked().len() <= 2);
    }
}

#[test]
fn of_several_ptus_the_first_that_reopens_serves() {
    let (first, second) = (closed_for(9_000), closed_for(400));
    let gateway = gateway("ptus", &[&first, &second], &[], "");
    served_after(&gateway, &[], 300, "ptu-1");
    assert!(first.asked().len() == 1 && second.asked().len() <= 4);
}

#[test]
fn no_wait_is_a_429_at_once_for_a_model_a_class_or_a_request() {
    let (ptu, standard) = (closed_for(10_000), closed_for(8_000));
    let both = [("ptu-alone", vec![&ptu], vec![]), ("standard-alone", vec![], vec![&standard])];
    for (name, ptus, standards) in both.into_iter().chain([("both", vec![&ptu], vec![&standard])]) {
        let patient = gateway(&format!("hasty-{name}"), &ptus, &standards, "max_wait = \"20s\"");
        let refused = refused_at_once(&patient, &[("x-spillover-class", "hasty")]);
        assert!(refused.header("retry-after-ms").is_some(), "{refused:?}");
        refused_at_once(&patient, &[("x-spillover-max-wait", "0s")]);
        refused_at_once(&patient, &[("x-spillover-max-wait", "100ms")]);
        let hasty = gateway(&format!("none-{name}"), &ptus, &standards, "max_wait = \"0s\"");
        refused_at_once(&hasty, &[]);
    }
}

#[test]
fn a_class_waits_as_long_as_it_may_and_one_that_never_spills_for_the_ptu_alone() {
    let (ptu, standard) = (closed_for(1_500), closed_for(100));
    let gateway = gateway("classes", &[&ptu], &[&standard], "max_wait = \"1s\"");
    served_after(&gateway, &[], 50, "standard-0");
    served_after(&gateway, &[("x-spillover-class", "batch")], 500, "ptu-0");
}

#[test]
fn a_crowd_at_a_closed_backend_is_served_in_full_and_asks_it_little() {
    let standard = closed_for(500);
    let gateway = Arc::new(gateway("crowd", &[], &[&standard], ""));
    refused_at_once(&gateway, &[("x-spillover-max-wait", "0s")]);
    let crowd: Vec<_> = (0..20)
        .map(|_| {
            let gateway = Arc::clone(&gateway);
            thread::spawn(move || ask(&gateway, &[]).0.status())
        })
        .collect();
    assert!(crowd.into_iter().all(|one| one.join().unwrap() == 200));
    assert_eq!(standard.asked().len(), 21, "the pool knew that it was closed");
}

const CHAT: &str = r#"{"object":"chat.completion","choices":[]}"#;

#[test]
fn a_region_that_refuses_is_waited_for_beside_one_that_is_misconfigured() {
    let (refusing, misconfigured) = (closed_for(1_000), Witness::new(|_| (401, "", String::new())));
    let gateway = gateway("misconfigured", &[], &[&refusing, &misconfigured], "");
    refused_at_once(&gateway, &[("x-spillover-class", "hasty")]);
    // A refusal found by another request is worth a retry: the 401 of our key is not the client's.
    refused_at_once(&gateway, &[("x-spillover-class", "hasty")]);
    served_after(&gateway, &[], 100, "standard-0");
}
