//! Against a gateway whose backends replay the corpus; every case is asserted.

use std::{env, error::Error, fs};

use async_openai::{
    Client,
    config::{AzureConfig, OpenAIConfig},
    error::OpenAIError,
    types::responses::{CreateResponse, CreateResponseArgs, ResponseStreamEvent},
};
use futures::StreamExt;

/// Reads the cases from `path`.
pub async fn run(path: &str) -> Result<(), Box<dyn Error>> {
    let (mut cases, mut failed) = (0, 0);
    for line in fs::read_to_string(path)?.lines() {
        let case: Vec<_> = line.split('\t').collect();
        let &[model, api, form, status, wait] = &case[..] else {
            return Err(format!("no case: {line}").into());
        };
        // This client comes back by itself, three times, each after the whole wait.
        if wait.parse().is_ok_and(|wait: u64| wait > LONGEST) {
            continue;
        }
        cases += 1;
        let told = match ask(model, api, form == "stream").await {
            Ok(text) if status == "200" && text == "Hello" => continue,
            Ok(text) => format!("{text:?} instead of {status}"),
            Err(OpenAIError::ApiError(error)) if error.status_code.as_str() == status => continue,
            // This client makes nothing of an error that is not in OpenAI's shape.
            Err(OpenAIError::JSONDeserialize(..)) if status != "200" => continue,
            Err(error) => format!("{error} instead of {status}"),
        };
        failed += 1;
        println!("  FAILED  {model}: {told}");
    }
    println!("async-openai: {} of {cases} cases", cases - failed);
    if failed > 0 || cases < 50 { Err("not every case is as expected".into()) } else { Ok(()) }
}

async fn ask(model: &str, api: &str, streams: bool) -> Result<String, OpenAIError> {
    match (api, streams) {
        ("chat", false) => {
            let answer = chats(model).chat().create(super::ask()?).await?;
            Ok(answer.choices[0].message.content.clone().unwrap_or_default())
        }
        ("chat", true) => {
            let mut chunks = chats(model).chat().create_stream(super::ask()?).await?;
            let mut text = String::new();
            while let Some(chunk) = chunks.next().await {
                for choice in chunk?.choices {
                    text += choice.delta.content.as_deref().unwrap_or("");
                }
            }
            Ok(text)
        }
        (_, false) => {
            let answer = responses().responses().create(response(model)?).await?;
            Ok(answer.output_text().unwrap_or_default())
        }
        (_, true) => {
            let mut events = responses().responses().create_stream(response(model)?).await?;
            let mut text = String::new();
            while let Some(event) = events.next().await {
                if let ResponseStreamEvent::ResponseOutputTextDelta(event) = event? {
                    text += &event.delta;
                }
            }
            Ok(text)
        }
    }
}

fn response(model: &str) -> Result<CreateResponse, OpenAIError> {
    CreateResponseArgs::default().model(model).input("Say hello").build()
}

fn chats(deployment: &str) -> Client<AzureConfig> {
    let azure = AzureConfig::new().with_api_base(given("GATEWAY_URL"));
    let azure = azure.with_api_key(given("GATEWAY_KEY")).with_api_version("2024-10-21");
    Client::with_config(azure.with_deployment_id(deployment))
}

fn responses() -> Client<OpenAIConfig> {
    let v1 = OpenAIConfig::new().with_api_base(format!("{}/openai/v1", given("GATEWAY_URL")));
    Client::with_config(v1.with_api_key(given("GATEWAY_KEY")))
}

fn given(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

/// The longest wait that a test has time for, in milliseconds.
const LONGEST: u64 = 1_000;
