//! async-openai with `AzureConfig`: chat, streaming, embeddings and errors, each asserted.

mod corpus;

use std::{env, error::Error};

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
        responses::CreateResponseArgs,
    },
};
use futures::StreamExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    if let Ok(cases) = env::var("CASES") {
        return corpus::run(&cases).await;
    }
    let (base, key) = (env::var("GATEWAY_URL")?, env::var("GATEWAY_KEY")?);
    let azure = |deployment: &str, key: &str| {
        Client::with_config(
            AzureConfig::new()
                .with_api_base(&base)
                .with_api_key(key)
                .with_api_version("2024-10-21")
                .with_deployment_id(deployment),
        )
    };
    chat(&azure("gpt-4o", &key)).await?;
    stream(&azure("gpt-4o", &key)).await?;
    if env::var_os("CORE_ONLY").is_none() {
        embeddings(&azure("text-embedding-3-small", &key)).await?;
        let v1 = OpenAIConfig::new().with_api_base(format!("{base}/openai/v1")).with_api_key(&key);
        responses(&Client::with_config(v1)).await?;
        told(&azure("nobody-made-this", &key), "does not exist").await?;
        told(&azure("gpt-4o", "not-a-key"), "Access denied").await?;
    }
    println!("async-openai: all calls as expected");
    Ok(())
}

async fn chat(client: &Client<AzureConfig>) -> Result<(), Box<dyn Error>> {
    let answer = client.chat().create(ask()?).await?;
    let content = answer.choices[0].message.content.as_deref().unwrap_or("");
    assert!(!content.is_empty(), "{answer:?}");
    println!("chat");
    Ok(())
}

async fn stream(client: &Client<AzureConfig>) -> Result<(), Box<dyn Error>> {
    let mut chunks = client.chat().create_stream(ask()?).await?;
    let (mut text, mut finished) = (String::new(), 0);
    while let Some(chunk) = chunks.next().await {
        for choice in chunk?.choices {
            text += choice.delta.content.as_deref().unwrap_or("");
            finished += usize::from(choice.finish_reason.is_some());
        }
    }
    assert!(!text.is_empty() && finished == 1, "{finished} ends after {text:?}");
    println!("streaming chat");
    Ok(())
}

async fn embeddings(client: &Client<AzureConfig>) -> Result<(), Box<dyn Error>> {
    let mut ask = CreateEmbeddingRequestArgs::default();
    let ask = ask.model("text-embedding-3-small").input(["one", "two"]).build()?;
    let answer = client.embeddings().create(ask).await?;
    assert_eq!(answer.data.len(), 2);
    assert!(!answer.data[1].embedding.is_empty());
    println!("embeddings");
    Ok(())
}

async fn responses(client: &Client<OpenAIConfig>) -> Result<(), Box<dyn Error>> {
    let mut ask = CreateResponseArgs::default();
    let ask = ask.model("gpt-4o").input("Count to ten").max_output_tokens(20_u32).build()?;
    let answer = client.responses().create(ask).await?;
    assert!(answer.output_text().is_some_and(|text| !text.is_empty()), "{answer:?}");
    println!("responses");
    Ok(())
}

/// The gateway's own refusal is read as an error of the API, with its words.
async fn told(client: &Client<AzureConfig>, words: &str) -> Result<(), Box<dyn Error>> {
    let Err(OpenAIError::ApiError(error)) = client.chat().create(ask()?).await else {
        return Err(format!("no API error that says {words:?}").into());
    };
    assert!(error.to_string().contains(words), "{error}");
    println!("error: {words}");
    Ok(())
}

fn ask() -> Result<CreateChatCompletionRequest, OpenAIError> {
    let message =
        ChatCompletionRequestUserMessageArgs::default().content("Count to ten").build()?;
    let mut ask = CreateChatCompletionRequestArgs::default();
    ask.model("gpt-4o").max_completion_tokens(20_u32).messages([message.into()]).build()
}
