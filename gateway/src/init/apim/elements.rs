//! Policy elements whose equivalent is elsewhere, or which have none.

use roxmltree::Node;

/// The remark about an element that is not converted; `None` if none is needed.
pub(super) fn left_out(name: &str, element: Node<'_, '_>) -> Option<String> {
    let attribute = |name: &str| element.attribute(name).unwrap_or_default();
    let instead = match name {
        "retry" => {
            "not needed: untried backends are tried immediately, and max_wait limits the wait for the first to reopen"
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
        "check-header" => "has no equivalent, except for the keys and tokens that identify clients",
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
        "validate-content"
        | "validate-parameters"
        | "validate-headers"
        | "validate-status-code" => {
            "has no equivalent: the service validates requests; [limits] body limits their size"
        }
        "authentication-basic" | "authentication-certificate" | "get-authorization-context" => {
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

#[cfg(test)]
mod tests {
    use roxmltree::Document;

    use super::left_out;

    #[test]
    fn policies_that_refuse_or_change_requests_are_listed() {
        for name in ["check-header", "get-authorization-context", "validate-content", "ip-filter"] {
            let text = format!("<{name} />");
            let document = Document::parse(&text).unwrap();
            let remark = left_out(name, document.root_element()).expect(name);
            assert!(remark.starts_with(&format!("{name}: ")), "{remark}");
        }
    }
}
