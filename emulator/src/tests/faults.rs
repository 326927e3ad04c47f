//! Scripted misbehaviour.

use super::*;

#[tokio::test(start_paused = true)]
async fn faults_are_taken_in_order() {
    let emulator = emulator();
    let reset = Fault::reset();
    emulator.script(
        "contoso-east",
        "ptu",
        [
            Fault::status(429).header("retry-after-ms", "43").header("retry-after", "1"),
            Fault::status(503).body("busy"),
            reset,
            Fault::delay(millis(700)).header("x-ratelimit-remaining-tokens", "-27689"),
        ],
    );
    emulator.script("contoso-east", "ptu", [Fault::pass()]);
    let start = clock::Clock::start();
    let first = send(&emulator, ask(CHAT_PTU, 1, 1)).await;
    assert_eq!((first.status().as_u16(), number(&first, "retry-after-ms")), (429, 43));
    let second = send(&emulator, ask(CHAT_PTU, 1, 1)).await;
    assert_eq!((second.status().as_u16(), text(second).await.as_str()), (503, "busy"));
    let third = emulator.service().call(ask(CHAT_PTU, 1, 1)).await;
    assert!(matches!(third, Err(EmulatorError::Reset)));
    assert_eq!(start.now(), Duration::ZERO);
    let fourth = send(&emulator, ask(CHAT_PTU, 1, 1)).await;
    assert_eq!(start.now(), millis(700));
    assert_eq!(number(&fourth, "x-ratelimit-remaining-tokens"), -27_689);
    for _ in 0..2 {
        assert_eq!(send(&emulator, ask(CHAT_PTU, 1, 1)).await.status(), StatusCode::OK);
    }
    let counts = emulator.stats().of("contoso-east", "ptu");
    assert_eq!((counts.attempts, counts.admitted, counts.ok), (6, 3, 3));
    assert_eq!((counts.throttled, counts.failed), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_cut_breaks_streams_and_whole_bodies() {
    let emulator = emulator();
    emulator.script(
        "contoso-east",
        "std",
        [Fault::cut_stream_after(3), Fault::cut_stream_after(0)],
    );
    let body = json!({"messages": [{"content": "x"}], "stream": true,
        "metadata": {"emulator_completion_tokens": 9}});
    let response = send(&emulator, post("contoso-east", CHAT_STD, "key-east", &body)).await;
    let mut body = response.into_body();
    for _ in 0..3 {
        assert!(body.frame().await.unwrap().is_ok());
    }
    assert!(matches!(body.frame().await, Some(Err(EmulatorError::Cut))));
    assert!(body.frame().await.is_none());
    let half = send(&emulator, ask(CHAT_STD, 1, 9)).await;
    assert!(half.into_body().collect().await.is_err());
    let counts = emulator.stats().of("contoso-east", "std");
    assert_eq!((counts.ok, counts.abandoned, counts.completion_tokens), (2, 2, 2 + 4));
}

#[tokio::test(start_paused = true)]
async fn a_share_of_the_requests_fails_each_by_a_draw_of_its_own() {
    let deployment = |name: &str| {
        Deployment::standard(name, Standard::unlimited())
            .fails(0.1, Fault::status(500))
            .fails(0.05, Fault::reset())
    };
    let run = async |seed| {
        let east = Resource::new("contoso-east").deployment(deployment("ptu"));
        let east = east.deployment(deployment("std"));
        let emulator = Emulator::new([east]).seed(seed);
        let mut statuses = [String::new(), String::new()];
        for _ in 0..1_000 {
            for (path, statuses) in [CHAT_PTU, CHAT_STD].into_iter().zip(&mut statuses) {
                let answer = emulator.service().call(ask(path, 1, 1)).await;
                statuses.push(match answer.map(|answer| answer.status().as_u16()) {
                    Ok(200) => '.',
                    Ok(_) => '5',
                    Err(_) => 'r',
                });
            }
        }
        statuses
    };
    let first = run(1).await;
    for statuses in &first {
        let of = |kind| statuses.matches(kind).count();
        assert!((70..130).contains(&of('5')) && (30..70).contains(&of('r')), "{statuses}");
    }
    assert_ne!(first[0], first[1], "deployments fail independently");
    assert_eq!(first, run(1).await);
    assert_ne!(first, run(2).await);
}

#[tokio::test(start_paused = true)]
async fn a_poisoned_request_meets_its_fault_everywhere_and_others_do_not() {
    let emulator = emulator().poison("divide by zero", Fault::status(500));
    emulator.script("contoso-east", "std", [Fault::status(503)]);
    let poisoned = json!({"model": "std", "messages": [{"content": "divide by zero"}]});
    for (path, key) in [(CHAT_PTU, "key-east"), (CHAT_STD, "key-east")] {
        let answer = send(&emulator, post("contoso-east", path, key, &poisoned)).await;
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
    let mut marked = ask(CHAT_PTU, 1, 1);
    marked.headers_mut().insert("x-note", "please divide by zero".parse().unwrap());
    assert_eq!(send(&emulator, marked).await.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(send(&emulator, ask(CHAT_PTU, 1, 1)).await.status(), StatusCode::OK);
    let next = send(&emulator, ask(CHAT_STD, 1, 1)).await;
    assert_eq!(next.status(), StatusCode::SERVICE_UNAVAILABLE, "the script waited");
    let counts = emulator.stats().of("contoso-east", "ptu");
    assert_eq!((counts.attempts, counts.failed), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn nobody_connects_in_process_while_a_resource_is_down() {
    let east = Resource::new("contoso-east")
        .deployment(Deployment::standard("std", Standard::unlimited()))
        .outage(Outage::at(millis(500), millis(300)));
    let emulator = Emulator::new([east]);
    for (time, works) in [(499, true), (1, false), (299, false), (1, true)] {
        pass(millis(time)).await;
        let answer = emulator.service().call(ask(CHAT_STD, 1, 1)).await;
        assert_eq!(answer.is_ok(), works, "{answer:?}");
        assert!(works || matches!(answer, Err(EmulatorError::Down)));
    }
    assert_eq!(emulator.stats().of("contoso-east", "std").attempts, 2);
}
