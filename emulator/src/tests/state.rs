//! Objects that one resource stores and the others do not know.

use super::*;

const KINDS: [&str; 9] = [
    "files",
    "uploads",
    "batches",
    "vector_stores",
    "containers",
    "skills",
    "evals",
    "conversations",
    "threads",
];

async fn call(
    emulator: &Emulator,
    host: &str,
    method: Method,
    path: &str,
    body: Value,
) -> (u16, Value) {
    let key = if host == "contoso-east" { "key-east" } else { "key-sweden" };
    let mut request = post(host, &format!("/openai/v1/{path}"), key, &body);
    *request.method_mut() = method;
    let response = send(emulator, request).await;
    (response.status().as_u16(), value(response).await)
}

#[tokio::test(start_paused = true)]
async fn each_kind_is_made_listed_read_and_deleted_where_it_is_and_unknown_elsewhere() {
    let emulator = emulator();
    let (east, sweden) = ("contoso-east", "contoso-sweden");
    for kind in KINDS {
        let (status, made) = call(&emulator, east, Method::POST, kind, json!({})).await;
        assert_eq!(status, 200, "{made}");
        let id = made["id"].as_str().unwrap();
        let of = format!("{kind}/{id}");
        let list = call(&emulator, east, Method::GET, kind, json!({})).await.1;
        assert_eq!(list["data"].as_array().unwrap().len(), 1, "{list}");
        assert_eq!(
            call(&emulator, sweden, Method::GET, kind, json!({})).await.1["data"],
            json!([])
        );
        assert_eq!(call(&emulator, east, Method::GET, &of, json!({})).await, (200, made.clone()));
        assert_eq!(call(&emulator, sweden, Method::GET, &of, json!({})).await.0, 404);
        let below = format!("{of}/items");
        assert_eq!(call(&emulator, sweden, Method::POST, &below, json!({})).await.0, 404);
        let gone = call(&emulator, east, Method::DELETE, &of, json!({})).await.1;
        assert_eq!(gone["deleted"], true);
        assert_eq!(call(&emulator, east, Method::GET, &of, json!({})).await.0, 404);
    }
    assert_eq!(emulator.stats().total().attempts, 0, "they cost no deployment anything");
}

#[tokio::test(start_paused = true)]
async fn a_response_is_read_cancelled_and_deleted_by_its_resource() {
    let emulator = emulator();
    let made = value(send(&emulator, ask("/openai/v1/responses", 1, 1)).await).await;
    let of = format!("responses/{}", made["id"].as_str().unwrap());
    let (east, sweden) = ("contoso-east", "contoso-sweden");
    assert_eq!(call(&emulator, sweden, Method::GET, &of, json!({})).await.0, 404);
    assert_eq!(call(&emulator, east, Method::GET, &of, json!({})).await.1["status"], "completed");
    let cancel = format!("{of}/cancel");
    let cancelled = call(&emulator, east, Method::POST, &cancel, json!({})).await.1;
    assert_eq!(cancelled["status"], "cancelled");
    assert_eq!(call(&emulator, east, Method::DELETE, &of, json!({})).await.0, 200);
    assert_eq!(call(&emulator, east, Method::GET, &of, json!({})).await.0, 404);
}

#[tokio::test(start_paused = true)]
async fn what_refers_to_another_resources_things_is_not_found() {
    let emulator = emulator();
    let (_, file) = call(&emulator, "contoso-east", Method::POST, "files", json!({})).await;
    let body = json!({"file_ids": [file["id"]]});
    let made =
        async |host| call(&emulator, host, Method::POST, "vector_stores", body.clone()).await.0;
    assert_eq!((made("contoso-east").await, made("contoso-sweden").await), (200, 404));
    let body = json!({"model": "std", "input": [{"content": [{"file_id": file["id"]}]}]});
    let asked = async |host| call(&emulator, host, Method::POST, "responses", body.clone()).await.0;
    assert_eq!((asked("contoso-east").await, asked("contoso-sweden").await), (200, 404));
}

#[tokio::test(start_paused = true)]
async fn creating_and_reading_are_limited_apart_from_each_other_and_from_deployments() {
    let east = Resource::new("contoso-east")
        .creations_per_minute(6)
        .reads_per_minute(12)
        .deployment(Deployment::standard("std", Standard::tokens_per_minute(60_000)));
    let emulator = Emulator::new([east]);
    let status =
        async |method, path| call(&emulator, "contoso-east", method, path, json!({})).await.0;
    assert_eq!(status(Method::POST, "files").await, 200);
    assert_eq!(status(Method::POST, "batches").await, 429);
    assert_eq!(status(Method::GET, "files").await, 200);
    assert_eq!(status(Method::GET, "batches").await, 200);
    assert_eq!(status(Method::GET, "files").await, 429);
    assert_eq!(send(&emulator, ask(CHAT_STD, 1, 1)).await.status(), StatusCode::OK);
}
