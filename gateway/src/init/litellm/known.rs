//! What is known of LiteLLM's providers, parameters and settings.

/// The provider of a deployment, by the prefix of its `model`.
pub(super) struct Provider {
    pub(super) prefix: &'static str,
    /// The backend's `provider`. Defaults to Azure.
    pub(super) name: Option<&'static str>,
    /// LiteLLM's default address.
    pub(super) base: &'static str,
    /// LiteLLM's default variable for its key.
    pub(super) variable: &'static str,
}

pub(super) const PROVIDERS: [Provider; 5] = [
    Provider { prefix: "azure", name: None, base: "", variable: "AZURE_API_KEY" },
    Provider {
        prefix: "openai",
        name: Some("openai"),
        base: "https://api.openai.com/v1",
        variable: "OPENAI_API_KEY",
    },
    Provider {
        prefix: "anthropic",
        name: Some("anthropic"),
        base: "https://api.anthropic.com/v1",
        variable: "ANTHROPIC_API_KEY",
    },
    Provider {
        prefix: "mistral",
        name: Some("mistral"),
        base: "https://api.mistral.ai/v1",
        variable: "MISTRAL_API_KEY",
    },
    Provider { prefix: "hosted_vllm", name: Some("http"), base: "", variable: "" },
];

/// The parameters of `litellm_params` that are converted.
pub(super) const READ: [&str; 13] = [
    "model",
    "api_base",
    "api_key",
    "api_version",
    "region_name",
    "order",
    "weight",
    "tenant_id",
    "client_id",
    "client_secret",
    "azure_ad_token",
    "base_model",
    "custom_llm_provider",
];

/// Replacements for settings.
pub(super) const INSTEAD: &[(&str, &str)] = &[
    (
        "num_retries retry_after retry_policy max_retries model_group_retry_policy",
        "not needed: the service's hints decide when a request is sent again; max_attempts limits that",
    ),
    (
        "allowed_fails cooldown_time disable_cooldowns allowed_fails_policy",
        "not needed: a refusal closes what it is about for as long as it asks, up to longest_cooldown",
    ),
    (
        "routing_strategy routing_strategy_args",
        "not needed: open backends are selected by priority and weight",
    ),
    (
        "rpm tpm max_parallel_requests",
        "not needed: a backend's refusal states its length; clients.NAME.concurrency limits a client",
    ),
    ("timeout request_timeout stream_timeout", "head_timeout of a model or of [upstream]"),
    (
        "success_callback failure_callback callbacks service_callback",
        "[telemetry] otlp, /metrics and the log",
    ),
    ("context_window_fallbacks", "spill_long_context and rotate_long_context of a model"),
    ("json_logs set_verbose", "[telemetry] json and log"),
    (
        "cache cache_params redis_host redis_port redis_password redis_url",
        "answers are not cached, and each replica learns on its own",
    ),
    ("database_url store_model_in_db", "keys of clients are in the file: [clients.NAME]"),
    ("ssl_verify", "upstream.trust adds certificates"),
    (
        "input_cost_per_token output_cost_per_token",
        "costs are not tracked; spillover_tokens_total counts tokens by client and tier",
    ),
];
