//! Policy elements whose equivalent is elsewhere, or which have none.

use roxmltree::Node;

/// The remark about an element that is not converted; `None` if none is needed.
pub(super) fn left_out(name: &str, element: Node<'_, '_>) -> Option<String> {
    let attribute = |name: &str| element.attribute(name).unwrap_or_default();
    let instead = match name {
        "retry" => {
            "not needed: untried backends are tried immediately, and max_wait limits the wait for the first to reopen"
        }
        "include-fragment" => {
            let id = attribute("fragment-id");
            return Some(format!(
                "include-fragment {id}: pass its XML with --backends to convert it"
            ));
        }
        "azure-openai-token-limit" | "llm-token-limit" => {
            "has no equivalent for clients; spill_budget limits what goes to Standard"
        }
        "rate-limit" | "rate-limit-by-key" | "quota" | "quota-by-key" => {
            "clients.NAME.requests_per_second"
        }
        "limit-concurrency" => "clients.NAME.concurrency",
        "validate-jwt" | "validate-azure-ad-token" => {
            "[tokens], and roles, groups or subjects of [clients.NAME]"
        }
        "validate-client-certificate" => "listen.tls client_ca, and certificates of [clients.NAME]",
        "cors" => "[listen.cors]",
        "ip-filter" => {
            "has no equivalent: the network's own rules decide who can reach the gateway"
        }
        "azure-openai-emit-token-metric" | "llm-emit-token-metric" | "emit-metric" => {
            "built in: spillover_tokens_total by client, model, backend and tier"
        }
        "azure-openai-semantic-cache-lookup"
        | "azure-openai-semantic-cache-store"
        | "llm-semantic-cache-lookup"
        | "llm-semantic-cache-store"
        | "cache-lookup"
        | "cache-store"
        | "cache-lookup-value"
        | "cache-store-value" => "answers are not cached",
        "llm-content-safety" => "has no equivalent; the service filters content itself",
        "log-to-eventhub" | "trace" => "the log, [telemetry] otlp and /-/requests",
        "rewrite-uri" | "set-body" | "find-and-replace" | "xsl-transform" | "json-to-xml"
        | "xml-to-json" => {
            "has no equivalent: bodies and paths are forwarded unchanged, except for the deployment"
        }
        "send-request" | "send-one-way-request" | "return-response" | "mock-response" => {
            "has no equivalent"
        }
        "authentication-basic" | "authentication-certificate" => {
            "has no equivalent: a backend has a key, or tokens of Entra ID"
        }
        "proxy" => "proxy of a backend, or HTTPS_PROXY",
        "forward-request" if !attribute("timeout").is_empty() => {
            "head_timeout of a model or of [upstream]"
        }
        _ => return None,
    };
    Some(format!("{name}: {instead}"))
}
