//! async-openai over the layers: chat, streams, responses, embeddings, errors.

use std::{convert::Infallible, time::Duration};

use async_openai::{
    Client,
    config::{AzureConfig, OpenAIConfig},
    error::OpenAIError,
    types::{
        chat::{
            ChatCompletionRequestUserMessageArgs, CreateChatCompletionRequest,
            CreateChatCompletionRequestArgs,
        },
        embeddings::CreateEmbeddingRequestArgs,
        responses::{CreateResponse, CreateResponseArgs, ResponseStreamEvent},
    },
};
use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response};
use http_body_util::Full;
use spillover_emulator::{Fault, Refusal};
use tower::{ServiceBuilder, service_fn};
use tower_spillover::{
    InspectLayer, MaxWait, RegionRotateLayer, Served, SmartFallbackLayer, policy::MoveOn,
    served::Attempt,
};
use tower_spillover_adapters::{
    Call,
    async_openai::FactoryService,
    reqwest::{HttpClient, RequestBody, error_kind},
};

use crate::{
    azure::{Azure, refused_for},
    clock::soon,
};

const PTU: &str = "east/gpt-4o-ptu";
const EAST: &str = "east/gpt-4o";

/// Clients in both grammars, over a PTU and Standard behind it.
fn clients(azure: &Azure) -> (Client<AzureConfig>, Client<OpenAIConfig>) {
    let http = HttpClient::new(reqwest::Client::builder().no_proxy()).expect("a client");
    let tier =
        |name| RegionRotateLayer::new(azure.pool([name])).move_on(MoveOn::new().errors(error_kind));
    let stack = ServiceBuilder::new()
        .layer(SmartFallbackLayer::new(tier(PTU), tier(EAST)).max_wait(Duration::from_millis(500)))
        .layer(InspectLayer::new())
        .service(http);
    let service = FactoryService::new(stack);
    // Neither address leads anywhere: the layers have those of the backends.
    let classic = AzureConfig::new().with_api_base("http://azure.invalid").with_api_key("callers");
    let classic = classic.with_api_version("2024-10-21").with_deployment_id("gpt-4o");
    let v1 = OpenAIConfig::new().with_api_base("http://azure.invalid/openai/v1");
    (
        Client::with_config(classic).with_http_service(service.clone()),
        Client::with_config(v1.with_api_key("callers")).with_http_service(service),
    )
}

fn chat() -> CreateChatCompletionRequest {
    let message = ChatCompletionRequestUserMessageArgs::default().content("Count to ten").build();
    let mut ask = CreateChatCompletionRequestArgs::default();
    ask.model("gpt-4o").messages([message.expect("a message").into()]);
    ask.max_completion_tokens(20_u32).build().expect("a request")
}

fn response() -> CreateResponse {
    let mut ask = CreateResponseArgs::default();
    ask.model("gpt-4o").input("Count to ten").max_output_tokens(20_u32).build().expect("a request")
}

fn attempts(served: &Served) -> Vec<(&str, u16)> {
    let status = |attempt: &Attempt| attempt.status().map_or(0, |status| status.as_u16());
    served.attempts().map(|attempt| (attempt.backend(), status(attempt))).collect()
}

/// Runs a call that succeeds, and returns how its one request was served.
async fn served<T>(call: impl Future<Output = Result<T, OpenAIError>>) -> (T, Served) {
    let (answer, mut served) = soon(Call::new().run(call)).await;
    assert_eq!(served.len(), 1, "{served:?}");
    (answer.expect("an answer"), served.remove(0))
}

#[tokio::test]
async fn a_chat_waits_for_the_ptu_spills_or_is_answered_at_once() {
    let azure = Azure::open(&["east"]).await;
    let (client, _) = clients(&azure);
    let (answer, account) = served(client.chat().create(chat())).await;
    assert!(answer.choices[0].message.content.as_ref().is_some_and(|text| !text.is_empty()));
    assert_eq!(attempts(&account), [(PTU, 200)]);

    azure.script(PTU, [refused_for(40)]);
    let (_, account) = served(client.chat().create(chat())).await;
    assert_eq!(attempts(&account), [(PTU, 429), (PTU, 200)]);

    azure.script(PTU, [refused_for(30_000)]);
    let (_, account) = served(client.chat().create(chat())).await;
    assert_eq!(attempts(&account), [(PTU, 429), (EAST, 200)]);
    assert!(account.spilled() && account.replayable());
    let keys = azure.emulator.received().into_iter().map(|it| it.headers["api-key"].clone());
    assert!(keys.into_iter().all(|key| key == "key-of-east"), "the caller's stays here");
}

#[tokio::test]
async fn a_chat_is_streamed() {
    let azure = Azure::open(&["east"]).await;
    let (client, _) = clients(&azure);
    azure.script(PTU, [refused_for(30_000)]);
    let (mut chunks, account) = served(client.chat().create_stream(chat())).await;
    assert_eq!(attempts(&account), [(PTU, 429), (EAST, 200)]);
    let (mut text, mut finished) = (String::new(), 0);
    while let Some(chunk) = soon(chunks.next()).await {
        for choice in chunk.expect("a chunk").choices {
            text += choice.delta.content.as_deref().unwrap_or("");
            finished += usize::from(choice.finish_reason.is_some());
        }
    }
    assert!(!text.is_empty() && finished == 1, "{finished} ends after {text:?}");
}

#[tokio::test]
async fn responses_and_embeddings_in_the_v1_grammar_get_the_backends_deployment() {
    let azure = Azure::open(&["east"]).await;
    let (_, client) = clients(&azure);
    azure.script(PTU, [refused_for(40)]);
    let (answer, account) = served(client.responses().create(response())).await;
    assert!(answer.output_text().is_some_and(|text| !text.is_empty()));
    assert_eq!(attempts(&account), [(PTU, 429), (PTU, 200)]);

    // A refusal behind status 200, which the client would take for the answer.
    let hidden = Fault::refusal(Refusal::Tokens).retry_after(Duration::from_secs(30)).in_stream();
    azure.script(PTU, [hidden]);
    let (mut events, account) = served(client.responses().create_stream(response())).await;
    assert_eq!(attempts(&account), [(PTU, 429), (EAST, 200)]);
    let mut text = String::new();
    while let Some(event) = soon(events.next()).await {
        if let ResponseStreamEvent::ResponseOutputTextDelta(event) = event.expect("an event") {
            text += &event.delta;
        }
    }
    assert!(!text.is_empty());

    let mut ask = CreateEmbeddingRequestArgs::default();
    let ask = ask.model("gpt-4o").input(["one", "two"]).build().expect("a request");
    let (answer, _) = served(client.embeddings().create(ask)).await;
    assert_eq!(answer.data.len(), 2);
}

#[tokio::test]
async fn a_call_has_limits_of_its_own_and_a_refusal_is_an_error_of_the_api() {
    let azure = Azure::open(&["east"]).await;
    let (client, _) = clients(&azure);
    azure.script(PTU, [refused_for(300)]);
    azure.script(EAST, [refused_for(300)]);
    let call = Call::new().with(MaxWait(Duration::ZERO));
    let (answer, served) = soon(call.run(client.chat().create(chat()))).await;
    assert!(matches!(answer, Err(OpenAIError::ApiError(_))), "{answer:?}");
    assert_eq!(attempts(&served[0]), [(PTU, 429), (EAST, 429)]);
    assert_eq!(azure.attempts(), 2, "async-openai does not ask again by itself");
}

#[tokio::test]
async fn an_error_of_reqwest_is_one_of_async_openai_and_any_other_is_boxed() {
    let http = HttpClient::new(reqwest::Client::builder().no_proxy()).expect("a client");
    let config = || OpenAIConfig::new().with_api_base("http://nowhere.invalid/openai/v1");
    let client = Client::with_config(config()).with_http_service(FactoryService::new(http));
    let error = soon(client.responses().create(response())).await.expect_err("no such host");
    assert!(matches!(&error, OpenAIError::Reqwest(error) if error.is_connect()), "{error:?}");

    let broken = service_fn(|_: Request<RequestBody>| async {
        Err::<Response<Full<Bytes>>, _>(std::io::Error::other("broken"))
    });
    let client = Client::with_config(config()).with_http_service(FactoryService::new(broken));
    let error = soon(client.responses().create(response())).await.expect_err("it is broken");
    assert!(matches!(&error, OpenAIError::Boxed(error) if error.to_string() == "broken"));
}

#[tokio::test]
async fn a_stack_over_another_client_than_reqwest_serves_async_openai_too() {
    let client = service_fn(|request: Request<RequestBody>| async move {
        assert_eq!(request.uri().path(), "/openai/deployments/gpt-4o/embeddings");
        let answer = r#"{"object": "list", "model": "m", "data": [],
            "usage": {"prompt_tokens": 1, "total_tokens": 1}}"#;
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(answer)))
    });
    let config =
        AzureConfig::new().with_api_base("http://azure.invalid").with_deployment_id("gpt-4o");
    let client = Client::with_config(config).with_http_service(FactoryService::new(client));
    let mut ask = CreateEmbeddingRequestArgs::default();
    let ask = ask.model("gpt-4o").input("one").build().expect("a request");
    assert!(soon(client.embeddings().create(ask)).await.expect("an answer").data.is_empty());
}
