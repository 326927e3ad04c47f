//! rig's OpenAI provider over the layers: answers, streams, refusals, forms.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response};
use http_body_util::Full;
use rig_core::{
    completion::CompletionRequest,
    providers::openai::{
        OpenAI, OpenAIConfig,
        wire::{AZURE, OPENAI},
    },
};
use rig_http::http_client::{Error, HttpClientExt, MultipartForm};
use tower::{ServiceBuilder, service_fn};
use tower_spillover::{
    MaxWait, RegionRotateLayer, Served, SmartFallbackLayer, policy::MoveOn, served::Attempt,
};
use tower_spillover_adapters::{
    Call,
    reqwest::{HttpClient, error_kind},
    rig::RigClient,
};

use crate::{
    azure::{Azure, refused_for},
    clock::soon,
};

const PTU: &str = "east/gpt-4o-ptu";
const EAST: &str = "east/gpt-4o";

/// A PTU and Standard behind it, over reqwest.
macro_rules! client {
    ($azure:expr) => {{
        let http = HttpClient::new(reqwest::Client::builder().no_proxy()).expect("a client");
        let tier = |name| {
            RegionRotateLayer::new($azure.pool([name])).move_on(MoveOn::new().errors(error_kind))
        };
        let tiers = SmartFallbackLayer::new(tier(PTU), tier(EAST));
        RigClient::new(
            ServiceBuilder::new().layer(tiers.max_wait(Duration::from_millis(500))).service(http),
        )
    }};
}

/// Azure's own grammar, and v1's.
fn providers(client: &(impl HttpClientExt + Clone + 'static)) -> [OpenAI; 2] {
    let classic = OpenAIConfig::with_key(&AZURE, "callers").with_base_url("http://azure.invalid");
    let v1 = OpenAIConfig::with_key(&OPENAI, "callers");
    let v1 = v1.with_base_url("http://azure.invalid/openai/v1");
    [classic, v1].map(|config| config.connect(client.clone()))
}

fn attempts(served: &Served) -> Vec<(&str, u16)> {
    let status = |attempt: &Attempt| attempt.status().map_or(0, |status| status.as_u16());
    served.attempts().map(|attempt| (attempt.backend(), status(attempt))).collect()
}

#[tokio::test]
async fn a_completion_waits_for_the_ptu_or_spills_in_both_grammars() {
    // A gate remembers a refusal of half a minute, so each grammar has its own.
    for grammar in 0..2 {
        let azure = Azure::open(&["east"]).await;
        let [classic, v1] = providers(&client!(azure));
        let provider = if grammar == 0 { classic } else { v1 };
        let model = provider.chat("gpt-4o");
        azure.script(PTU, [refused_for(40)]);
        let ask = CompletionRequest::new("Count to ten");
        let (answer, served) = soon(Call::new().run(model.call(ask))).await;
        assert!(!answer.expect("an answer").text().is_empty());
        assert_eq!(attempts(&served[0]), [(PTU, 429), (PTU, 200)]);

        azure.script(PTU, [refused_for(30_000)]);
        let ask = CompletionRequest::new("Count to ten");
        let (answer, served) = soon(Call::new().run(model.call(ask))).await;
        answer.expect("an answer");
        assert_eq!(attempts(&served[0]), [(PTU, 429), (EAST, 200)]);
    }
}

#[tokio::test]
async fn a_refusal_of_all_backends_is_an_error_with_its_status_and_wait() {
    let azure = Azure::open(&["east"]).await;
    azure.script(PTU, [refused_for(30_000)]);
    azure.script(EAST, [refused_for(20_000)]);
    let client = client!(azure);
    let sent = Call::new().with(MaxWait(Duration::ZERO)).run(client.send::<_, Bytes>(chat()));
    let (answer, served) = soon(sent).await;
    let Err(error) = answer else { panic!("it was served") };
    assert_eq!(error.non_success_status().map(|status| status.as_u16()), Some(429));
    assert!(error.non_success_headers().is_some_and(|it| it.contains_key("retry-after-ms")));
    assert!(error.non_success_body().is_some_and(|body| body.contains("error")));
    assert_eq!(attempts(&served[0]), [(PTU, 429), (EAST, 429)]);
}

#[tokio::test]
async fn an_answer_is_streamed_and_has_its_account() {
    let azure = Azure::open(&["east"]).await;
    let client = client!(azure);
    let question = r#"{"messages": [{"content": "hello"}], "stream": true}"#;
    let answer = soon(client.send_streaming(chat().map(|_| question))).await.expect("a response");
    let served: &Served = answer.extensions().get().expect("the account");
    assert_eq!(attempts(served), [(PTU, 200)]);
    let mut text = Vec::new();
    let mut body = answer.into_body();
    while let Some(data) = soon(body.next()).await {
        text.extend(data.expect("no error"));
    }
    assert!(text.ends_with(b"data: [DONE]\n\n"));
}

#[tokio::test]
async fn a_form_is_sent_with_its_boundary() {
    let client = RigClient::new(service_fn(|request: Request<Full<Bytes>>| async move {
        let kind = request.headers()["content-type"].to_str().expect("a text").to_owned();
        let boundary = kind.strip_prefix("multipart/form-data; boundary=").expect("a form");
        let body = http_body_util::BodyExt::collect(request.into_body()).await?.to_bytes();
        assert!(body.starts_with(format!("--{boundary}\r\n").as_bytes()));
        Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from("{}")))
    }));
    let form = MultipartForm::new().text("model", "whisper");
    let request = Request::post("http://azure/openai/v1/audio/transcriptions");
    let answer = client.send_multipart::<Bytes>(request.body(form).expect("a request"));
    assert_eq!(answer.await.expect("a response").into_body().await.expect("a body"), "{}");
}

#[tokio::test]
async fn an_error_of_the_stack_is_rigs_own_with_its_cause() {
    let client = RigClient::new(service_fn(|_: Request<Full<Bytes>>| async {
        Err::<Response<Full<Bytes>>, _>(std::io::Error::other("broken"))
    }));
    let error = client.send::<_, Bytes>(chat()).await.map(drop).expect_err("it is broken");
    assert!(matches!(&error, Error::Instance(error) if error.to_string() == "broken"), "{error}");
}

fn chat() -> Request<&'static str> {
    let path = "/openai/deployments/any/chat/completions?api-version=2024-10-21";
    Request::post(format!("http://azure.invalid{path}"))
        .header("content-type", "application/json")
        .body(r#"{"messages": [{"role": "user", "content": "hello"}]}"#)
        .expect("a valid request")
}
