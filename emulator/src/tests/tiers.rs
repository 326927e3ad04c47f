//! Service tiers, each with its own capacity.

use super::*;

fn tiered() -> Emulator {
    let deployment = Deployment::standard("std", Standard::unlimited())
        .flex(Standard::tokens_per_minute(1_000))
        .priority(Standard::tokens_per_minute(1_000));
    let plain = Deployment::ptu("ptu", Ptu::new(1e6));
    Emulator::new([Resource::new("contoso-east").deployment(deployment).deployment(plain)])
}

fn of_tier(tier: &str, path: &str, stream: bool) -> Request<Full<Bytes>> {
    let body = json!({"model": "std", "service_tier": tier, "stream": stream, "input": "x",
        "messages": [{"content": "x"}], "metadata": {"emulator_prompt_tokens": 1_000}});
    post("contoso-east", path, "", &body)
}

#[tokio::test(start_paused = true)]
async fn flex_without_capacity_is_refused_and_the_default_tier_is_not() {
    let emulator = tiered();
    for _ in 0..2 {
        let served = send(&emulator, of_tier("default", CHAT_STD, false)).await;
        assert_eq!(value(served).await["service_tier"], "default");
    }
    let served = send(&emulator, of_tier("flex", CHAT_STD, false)).await;
    assert_eq!(value(served).await["service_tier"], "flex");
    let refused = send(&emulator, of_tier("flex", CHAT_STD, false)).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(number(&refused, "retry-after-ms"), 60_000);
    assert_eq!(value(refused).await["error"]["code"], "resource_unavailable");
    let served = send(&emulator, of_tier("auto", "/openai/v1/responses", false)).await;
    assert_eq!(value(served).await["service_tier"], "default");
}

#[tokio::test(start_paused = true)]
async fn priority_beyond_its_capacity_is_served_as_default() {
    let emulator = tiered();
    for tier in ["priority", "default"] {
        let served = send(&emulator, of_tier("priority", CHAT_STD, true)).await;
        let events = text(served).await;
        let named = format!(r#""service_tier":"{tier}""#);
        assert!(events.matches(&named).count() > 1, "{events}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deployment_without_tiers_refuses_the_tier_and_not_the_request() {
    let emulator = tiered();
    for tier in ["flex", "priority", "fast"] {
        let refused = send(&emulator, of_tier(tier, CHAT_PTU, false)).await;
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
        assert_eq!(value(refused).await["error"]["param"], "service_tier");
    }
    let served = send(&emulator, ask(CHAT_PTU, 1, 1)).await;
    assert!(value(served).await.get("service_tier").is_none(), "nobody asked");
}
