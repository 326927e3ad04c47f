//! `spillover init`: what it writes is served, and nothing secret is in it.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use crate::{
    emulate::file,
    started::{ran, stderr, stdout},
};

const CANARY: &str = "canary-9f1e77c2";

/// A path where nothing is.
fn fresh(name: &str) -> PathBuf {
    let path = file(&format!("init/{name}"), "");
    fs::remove_file(&path).unwrap();
    path
}

/// Converts a source, which must succeed, and has `check` accept it once the variables are set that it lists.
fn converted(name: &str, arguments: &[&str]) -> (String, String) {
    let target = fresh(&format!("{name}.toml"));
    let path = target.to_str().unwrap();
    let output = ran(&[&["init"], arguments, &[path]].concat());
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let text = fs::read_to_string(&target).unwrap();
    assert!(!text.contains(CANARY) && !said.contains(CANARY), "{text}\n{said}");
    let checked = check(path, &variables(&text));
    assert_eq!(checked.status.code(), Some(0), "{}\n{text}", stderr(&checked));
    for variable in variables(&text).keys() {
        assert!(said.contains(&format!("{variable}: ")), "{variable} is not listed:\n{said}");
    }
    (text, said)
}

/// The variables that a file refers to, each with a value that could be a key.
fn variables(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let names = lines.flat_map(|line| line.split("env:").skip(1));
    let names = names.map(|rest| rest.split('"').next().unwrap().to_owned());
    names.enumerate().map(|(index, name)| (name, format!("a-long-enough-key-{index:04}"))).collect()
}

fn check(path: &str, variables: &BTreeMap<String, String>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spillover"));
    command.args(["check", path]).envs(variables).output().unwrap()
}

#[test]
fn the_file_to_begin_with_passes_a_check_and_is_never_written_over_another() {
    let target = fresh("plain.toml");
    let path = target.to_str().unwrap();
    let output = ran(&["init", path]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = fs::read_to_string(&target).unwrap();
    assert_eq!(stdout(&ran(&["init"])), text, "without a file it is printed");
    let checked = check(path, &variables(&text));
    assert_eq!(checked.status.code(), Some(0), "{}", stderr(&checked));
    assert!(stderr(&checked).is_empty(), "{}", stderr(&checked));

    fs::write(&target, "mine").unwrap();
    let again = ran(&["init", path]);
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains("already exists"), "{}", stderr(&again));
    assert_eq!(fs::read_to_string(&target).unwrap(), "mine");
}

#[test]
fn every_literal_key_gets_a_variable_of_its_own_and_is_not_shown() {
    let source = file(
        "init/keys.yaml",
        &format!(
            r#"
model_list:
  - model_name: x
    litellm_params: {{ model: openai/x, api_base: "https://a.example/v1", api_key: {CANARY}-a }}
  - model_name: y
    litellm_params: {{ model: openai/y, api_base: "https://b.example/v1", api_key: {CANARY}-b }}
  - model_name: z
    litellm_params: {{ model: openai/z, api_base: "https://b.example/v1", api_key: {CANARY}-b }}
  - model_name: named
    litellm_params: {{ model: openai/n, api_base: "https://c.example/v1", api_key: os.environ/OPENAI_KEY_2 }}
  - model_name: one
    litellm_params: {{ model: azure/one, api_base: "http://10.0.0.1", api_key: {CANARY}-c }}
  - model_name: two
    litellm_params: {{ model: azure/two, api_base: "http://10.9.9.9", api_key: {CANARY}-d }}
  - model_name: bare
    litellm_params: {{ model: azure/bare, api_base: "me:{CANARY}@east.openai.azure.com", api_key: os.environ/E }}
  - model_name: pasted
    litellm_params: {{ model: azure/pasted, api_base: {CANARY}, api_key: os.environ/E }}
  - model_name: custom
    litellm_params: {{ model: gpt, custom_llm_provider: azure, api_base: "https://east.openai.azure.com", api_key: os.environ/E, weight: 0.5 }}
"#
        ),
    );
    let output = ran(&["init", "--from", "litellm", source.to_str().unwrap()]);
    let (text, said) = (stdout(&output), stderr(&output));
    assert!(output.status.success(), "{said}");
    for shown in [&text, &said] {
        assert!(!shown.to_lowercase().contains(&CANARY.to_lowercase()), "{shown}");
    }
    let read: toml::Table = text.parse().unwrap();
    let key =
        |model: &str| read["models"][model]["standard"][0]["key"].as_str().unwrap().to_owned();
    let keys: Vec<_> = ["x", "y", "named", "one", "two"].map(key).to_vec();
    for (index, one) in keys.iter().enumerate() {
        assert!(!keys[index + 1..].contains(one), "{keys:?}");
    }
    assert_eq!(key("y"), key("z"), "one secret has one variable");
    assert_eq!(key("named"), "env:OPENAI_KEY_2");
    let custom = &read["models"]["custom"]["standard"][0];
    assert!(custom.get("provider").is_none(), "{custom}");
    assert!(said.contains("custom: litellm_params.weight"), "{said}");
}

#[test]
fn a_litellm_configuration_keeps_its_models_tiers_and_keys_by_reference() {
    let source = file(
        "init/litellm.yaml",
        &format!(
            r#"
model_list:
  - model_name: gpt-4o
    litellm_params: &east
      model: azure/gpt-4o-ptu
      api_base: https://contoso-east.openai.azure.com/
      api_key: os.environ/EAST_KEY
      api_version: "2024-10-21"
      order: 1
    model_info: {{ id: east-ptu, base_model: azure/gpt-4o }}
  - model_name: gpt-4o
    litellm_params:
      model: azure/gpt-4o
      api_base: https://contoso-sweden.openai.azure.com/openai/
      api_key: {CANARY}
      rpm: 100
      weight: 3
  - model_name: mini-ptu
    litellm_params: {{ model: azure/mini, api_base: os.environ/MINI_BASE, api_key: os.environ/MINI_KEY }}
  - model_name: mini
    litellm_params: {{ model: azure/mini-standard, api_base: "https://mini.openai.azure.com", api_key: os.environ/MINI_KEY }}
  - model_name: claude
    litellm_params: {{ model: anthropic/claude-3, api_key: {CANARY} }}
  - model_name: local
    litellm_params: {{ model: hosted_vllm/llama, api_base: "http://127.0.0.1:8000/v1" }}
  - model_name: nova
    litellm_params: {{ model: bedrock/amazon.nova, aws_secret_access_key: {CANARY} }}
  - model_name: "*"
    litellm_params: {{ model: "azure/*" }}
router_settings:
  routing_strategy: usage-based-routing-v2
  num_retries: 3
  redis_password: {CANARY}
  model_group_alias: {{ gpt-4: gpt-4o, other: {{ model: nowhere }} }}
  fallbacks: [{{ mini-ptu: [mini] }}, {{ gpt-4o: [claude] }}]
litellm_settings:
  success_callback: ["langfuse"]
  something_new: true
general_settings:
  master_key: {CANARY}
"#
        ),
    );
    let (text, said) = converted("litellm", &["--from", "litellm", source.to_str().unwrap()]);
    let read: toml::Table = text.parse().unwrap();
    let models = read["models"].as_table().unwrap();
    let gpt = &models["gpt-4o"];
    assert_eq!(gpt["ptu"][0]["deployment"].as_str(), Some("gpt-4o-ptu"));
    assert_eq!(gpt["ptu"][0]["key"].as_str(), Some("env:EAST_KEY"));
    assert_eq!(gpt["ptu"][0]["priority"].as_integer(), Some(1));
    let sweden = &gpt["standard"][0];
    assert_eq!(sweden["endpoint"].as_str(), Some("https://contoso-sweden.openai.azure.com"));
    assert_eq!((sweden.get("deployment"), sweden["weight"].as_integer()), (None, Some(3)));
    assert_eq!(gpt["aliases"][0].as_str(), Some("gpt-4"));
    let mini = &models["mini-ptu"];
    assert_eq!(mini["standard"][0]["deployment"].as_str(), Some("mini-standard"));
    assert!(!models.contains_key("nova") && !models.contains_key("*"));
    let (claude, local) = (&models["claude"]["standard"][0], &models["local"]["standard"][0]);
    assert_eq!(claude["provider"].as_str(), Some("anthropic"));
    assert_eq!(claude["endpoint"].as_str(), Some("https://api.anthropic.com/v1"));
    assert_eq!((local["provider"].as_str(), local["auth"].as_str()), (Some("http"), Some("none")));
    assert_eq!(read["clients"]["litellm"]["keys"][0].as_str(), Some("env:LITELLM_MASTER_KEY"));
    for told in [
        "nova: bedrock/amazon.nova: the provider bedrock cannot",
        "*: a wildcard",
        "router_settings.num_retries: not needed",
        "router_settings.routing_strategy: not needed",
        "litellm_params.rpm: not needed",
        "litellm_settings.success_callback: [telemetry] otlp",
        "litellm_settings.something_new: has no equivalent",
        "model_group_alias other",
        "fallbacks of gpt-4o to claude",
        "which is in the source and was not copied",
        "MINI-BASE.openai.azure.com",
    ] {
        let is_said = said.to_lowercase().contains(&told.to_lowercase());
        assert!(is_said, "{told} is not in\n{said}");
    }
}

#[test]
fn a_policy_of_api_management_becomes_a_tier_of_its_branches() {
    let fragment = format!(
        r#"<fragment><choose>
  <when condition="@(context.Variables.GetValueOrDefault<int>("urlId") == 1 && true)">
    <set-variable name="url" value="{{{{aoai-eastus}}}}" />
    <set-header name="api-key" exists-action="override"><value>{{{{aoai-eastus-key}}}}</value></set-header>
  </when>
  <when condition="@(context.Variables.GetValueOrDefault<int>("urlId") == 2)">
    <set-variable name="url" value="https://contoso-ptu.openai.azure.com/openai" />
    <set-header name="api-key" exists-action="override"><value>{CANARY}</value></set-header>
  </when>
</choose></fragment>"#
    );
    let policy = r#"<policies><inbound><include-fragment fragment-id="deployments" />
  <set-backend-service base-url="@((string)context.Variables["url"])" />
  <rate-limit-by-key calls="10" renewal-period="60" counter-key="@(context.Subscription.Id)" /></inbound>
  <backend><retry condition="@(context.Response.StatusCode == 429)" count="30" interval="4" delta="2">
  <forward-request buffer-request-body="true" timeout="30" /></retry></backend></policies>"#;
    let (policy, fragment) =
        (file("init/policy.xml", policy), file("init/fragment.xml", &fragment));
    let arguments =
        ["--from", "apim", policy.to_str().unwrap(), "--backends", fragment.to_str().unwrap()];
    let (text, said) =
        converted("apim-fragment", &[&arguments[..], &["--model", "gpt-35-turbo"]].concat());
    let read: toml::Table = text.parse().unwrap();
    let model = &read["models"]["gpt-35-turbo"];
    assert_eq!(model["ptu"][0]["endpoint"].as_str(), Some("https://contoso-ptu.openai.azure.com"));
    assert_eq!(model["standard"][0]["key"].as_str(), Some("env:AOAI_EASTUS_KEY"));
    for told in [
        "aoai-eastus, whose value is unknown",
        "rate-limit-by-key: clients.NAME",
        "retry: not needed",
        "forward-request: head_timeout",
    ] {
        assert!(said.contains(told), "{told} is not in\n{said}");
    }
}

#[test]
fn backends_and_pools_of_a_template_keep_their_priorities_and_keys_by_name() {
    let template = format!(
        r#"{{ "parameters": {{ "east": {{ "defaultValue": "https://contoso-east.openai.azure.com/openai" }} }},
  "resources": [
    {{ "type": "Microsoft.ApiManagement/service/backends", "name": "[concat(parameters('apim'), '/east-ptu')]",
      "properties": {{ "url": "[parameters('east')]", "circuitBreaker": {{ "rules": [] }},
        "credentials": {{ "header": {{ "api-key": ["{{{{east-key}}}}"] }} }} }} }},
    {{ "type": "Microsoft.ApiManagement/service/backends", "name": "[format('{{0}}/{{1}}', parameters('apim'), 'sweden')]",
      "properties": {{ "url": "https://contoso-sweden.openai.azure.com/openai",
        "credentials": {{ "header": {{ "api-key": ["{CANARY}"] }} }} }} }},
    {{ "type": "Microsoft.ApiManagement/service/backends", "name": "apim/pool",
      "properties": {{ "type": "Pool", "pool": {{ "services": [
        {{ "id": "[resourceId('Microsoft.ApiManagement/service/backends', parameters('apim'), 'east-ptu')]", "priority": 1 }},
        {{ "id": "/subscriptions/1/providers/Microsoft.ApiManagement/service/apim/backends/sweden", "priority": 2, "weight": 50 }},
        {{ "id": "backends/missing", "priority": 3 }} ] }} }} }} ] }}"#
    );
    let policy = r#"<policies><inbound><set-backend-service backend-id="pool" />
        <authentication-managed-identity resource="https://cognitiveservices.azure.com" /></inbound></policies>"#;
    let (policy, template) = (file("init/pool.xml", policy), file("init/template.json", &template));
    let arguments =
        ["--from", "apim", policy.to_str().unwrap(), "--backends", template.to_str().unwrap()];
    let (text, said) = converted("apim-pool", &arguments);
    let read: toml::Table = text.parse().unwrap();
    let model = &read["models"]["gpt-4o"];
    let (ptu, sweden) = (&model["ptu"][0], &model["standard"][0]);
    assert_eq!(ptu["endpoint"].as_str(), Some("https://contoso-east.openai.azure.com"));
    assert_eq!(
        (ptu["key"].as_str(), ptu["priority"].as_integer()),
        (Some("env:EAST_KEY"), Some(1))
    );
    assert_eq!(
        (sweden["priority"].as_integer(), sweden["weight"].as_integer()),
        (Some(2), Some(50))
    );
    assert!(
        said.contains("is a placeholder for missing, whose value is unknown")
            && said.contains("circuitBreaker of east-ptu"),
        "{said}"
    );

    // Branches by path are models of their own, and a backend that is not known has a stand-in.
    let policy = r#"<policies><inbound>
        <set-variable name="path" value="@(context.Request.OriginalUrl.Path.Trim('/'))" /><choose>
        <when condition="@(context.Variables.GetValueOrDefault<string>("path").StartsWith("/deployments/gpt-4o-mini/"))">
          <set-backend-service backend-id="lb-mini" /></when>
        <when condition="@(context.Variables.GetValueOrDefault<string>("path").StartsWith("/deployments/gpt-4o/"))">
          <set-backend-service backend-id="lb-4o" /></when></choose>
        <set-variable name="backend-counter" value="0" />
        <authentication-managed-identity resource="https://cognitiveservices.azure.com" client-id="{{IDENTITY}}" />
        </inbound></policies>"#;
    let policy = file("init/by-path.xml", policy);
    let (text, said) = converted("apim-by-path", &["--from", "apim", policy.to_str().unwrap()]);
    let read: toml::Table = text.parse().unwrap();
    let names: Vec<_> = read["models"].as_table().unwrap().keys().collect();
    assert_eq!(names, ["gpt-4o", "gpt-4o-mini"]);
    assert!(
        said.contains("is a placeholder for lb-mini")
            && said.contains("write the value of IDENTITY"),
        "{said}"
    );

    // The policy alone, with a managed identity.
    let policy = r#"<policies><inbound><set-backend-service base-url="https://one.openai.azure.com/openai" />
        <authentication-managed-identity resource="https://cognitiveservices.azure.com" client-id="1111" /></inbound></policies>"#;
    let policy = file("init/alone.xml", policy);
    let (text, _) = converted("apim-alone", &["--from", "apim", policy.to_str().unwrap()]);
    assert!(text.contains("auth = \"entra\"") && text.contains("client_id = \"1111\""), "{text}");
}

#[test]
fn a_source_that_cannot_be_converted_is_refused_and_nothing_is_written() {
    for (name, kind, text, told) in [
        ("broken.yaml", "litellm", "model_list: [", "is not YAML"),
        ("other.yaml", "litellm", "a: 1\n", "has no model_list"),
        (
            "none.yaml",
            "litellm",
            "model_list:\n- model_name: a\n  litellm_params: { model: cohere/x }\n",
            "has no deployment (model: azure/NAME)",
        ),
        ("broken.xml", "apim", "<policies>", "is not a policy in XML"),
        ("none.xml", "apim", "<policies/>", "it contains no backend"),
        ("none.txt", "nginx", "", "unknown source; use litellm or apim"),
    ] {
        let source = file(&format!("init/{name}"), text);
        let target = fresh(&format!("{name}.toml"));
        let output =
            ran(&["init", "--from", kind, source.to_str().unwrap(), target.to_str().unwrap()]);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(told) && !target.exists(), "{told}\n{said}");
    }
    let missing = ran(&["init", "--from", "litellm", "/nowhere.yaml"]);
    assert_eq!(missing.status.code(), Some(2));
    assert_eq!(ran(&["init", "--from", "litellm"]).status.code(), Some(2));
    let twice = ["init", "--from", "litellm", "a", "--from", "litellm", "b"];
    assert_eq!(ran(&twice).status.code(), Some(2));
}
