//! Providers of backends: conflicting settings are refused at their key, with a remedy.

use super::{Folder, expect_each, file};

fn backend(endpoint: &str, more: &str) -> String {
    format!("name = \"a\", endpoint = \"{endpoint}\", {more}")
}

const KEY: &str = "key = \"env:EAST_KEY\"";

#[test]
fn every_provider_is_taken_with_its_own_address() {
    let folder = Folder::new();
    for (provider, endpoint) in [
        ("azure", "https://contoso.openai.azure.com"),
        ("azure", "https://apim.example/team/v1"),
        ("openai", "https://api.openai.com/v1"),
        ("openai", "https://api.openai.com"),
        ("anthropic", "https://api.anthropic.com/v1/"),
        ("bedrock", "https://bedrock-runtime.us-west-2.amazonaws.com/openai/v1"),
        ("bedrock", "https://bedrock-mantle.us-east-1.api.aws/v1"),
        ("mistral", "https://api.mistral.ai/v1"),
        ("http", "https://vllm.example:8000/v1"),
        ("http", "https://openrouter.example/api/v1"),
    ] {
        let more = format!("{KEY}, provider = \"{provider}\"");
        let output = folder.check(&file("", &backend(endpoint, &more), ""));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{provider} {endpoint}: {text}");
    }
    let none = backend("https://vllm.example/v1", "auth = \"none\", provider = \"http\"");
    assert!(folder.check(&file("", &none, "")).status.success());
}

#[test]
fn what_cannot_work_is_refused_at_its_key_with_a_remedy() {
    let own =
        "models.m.standard[0].endpoint: is an address of another provider; set the provider to";
    let azure = "models.m.standard[0].endpoint: is of Azure, whose paths are its own; leave the provider out";
    let v1 = "models.m.standard[0].endpoint: ends in `/v1`, where Azure has `/openai/v1`; set the provider \
              to `openai` or whose it is, or to `azure` where a gateway's own path ends so";
    for (endpoint, more, expected) in [
        ("https://api.openai.com/v1", "", &*format!("{own} `openai`")),
        ("https://api.openai.com", "", &*format!("{own} `openai`")),
        ("https://api.openai.com/v1", "provider = \"azure\"", &*format!("{own} `openai`")),
        ("https://api.anthropic.com/v1", "provider = \"openai\"", &*format!("{own} `anthropic`")),
        ("https://llm.example/v1", "", v1),
        ("https://contoso.openai.azure.com", "provider = \"openai\"", azure),
        ("https://contoso.openai.azure.com/openai/v1", "provider = \"mistral\"", azure),
        (
            "https://contoso.openai.azure.com/openai/deployments/gpt-4o",
            "provider = \"openai\"",
            "models.m.standard[0].endpoint: goes on after `/openai`; cut it off before `/openai` and \
             configure the deployment by itself",
        ),
        (
            "https://api.openai.com/v1/chat/completions",
            "provider = \"openai\"",
            "models.m.standard[0].endpoint: goes on with an operation; cut that off, behind `/v1`",
        ),
        (
            "https://api.openai.com/v1",
            "provider = \"openai\", api_version = \"2024-10-21\"",
            "models.m.standard[0].api_version: is Azure's; leave it out with the provider `openai`",
        ),
        (
            "https://api.openai.com/v1",
            "provider = \"openai\", image_deployment = \"dalle\"",
            "models.m.standard[0].image_deployment: is Azure's; leave it out with the provider `openai`",
        ),
        (
            "https://api.openai.com/v1",
            "provider = \"OpenAI\"",
            "models.m.standard[0].provider: \"OpenAI\" is unknown; use one of azure, openai, anthropic, \
             bedrock, mistral, http",
        ),
        (
            "https://api.openai.com/v1",
            "provider = \"cohere\"",
            "models.m.standard[0].provider: \"cohere\" is unknown; use one of azure, openai, anthropic, \
             bedrock, mistral, http",
        ),
    ] {
        let more = if more.is_empty() { KEY.to_owned() } else { format!("{KEY}, {more}") };
        expect_each(&[("", &backend(endpoint, &more), "", expected)]);
    }
}

#[test]
fn entra_is_for_azure_and_an_access_key_is_no_key_of_bedrock() {
    expect_each(&[(
        "",
        &backend("https://api.anthropic.com", "provider = \"anthropic\", auth = \"entra\""),
        "",
        "models.m.standard[0].auth: is for Azure, and the provider is \"anthropic\"; use key = \"env:NAME\"",
    )]);
    expect_each(&[(
        "",
        &backend("https://llm.example/v1", "provider = \"http\""),
        "",
        "models.m.standard[0]: has neither `key` nor `auth`; add key = \"env:NAME\", or auth = \"none\" \
         if the network authenticates",
    )]);
    expect_each(&[(
        "",
        &backend(
            "https://bedrock-runtime.us-west-2.amazonaws.com",
            "provider = \"bedrock\", key = \"env:AWS_KEY\"",
        ),
        "",
        "models.m.standard[0].key: is an access key of AWS, which signs requests (SigV4), as is not done \
         here; use a Bedrock API key",
    )]);
}
