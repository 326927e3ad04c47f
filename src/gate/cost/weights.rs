//! The default estimate in weighted tokens, and the weight of output.

use std::sync::Arc;

use super::{EstimateCost, Head, Usage};
use crate::{
    azure::{ApiPath, ContentKind, Demand, Operation, content_length},
    backend::Deployment,
    random,
};

/// Weighted tokens: one token for every four bytes of prompt, and a weight for every token that may
/// be generated.
///
/// The prompt is the text of messages, input, instructions and tools, without JSON's own punctuation.
/// Attachments (images, audio, files) count as 765 tokens each, whatever their size: the cost of a
/// 1024 x 1024 image for gpt-4o (Azure page "Vision-enabled models", detail `high`). Output is the
/// most that the request allows, times the number of choices that it requests; embeddings have none.
/// Cached prompt tokens are free, as on a PTU, but only the answer shows which they are.
///
/// Reading a body costs 0.1 to 0.6 microseconds per KiB, about one if it is mostly quotes and
/// escapes, and no allocation. Of a list or text of more than 4 KiB, windows are read at places that
/// are drawn for each request: the estimate is then within a tenth of what reading all of it gives,
/// within a quarter for tool calls, and right on average for images. A body that is not JSON counts as
/// text, one that is not in memory by its `content-length`, an upload as one attachment, and a request
/// without a body as nothing.
#[derive(Clone, Debug)]
pub struct TokenWeights {
    output: f64,
    unstated_output: f64,
    models: Vec<(Deployment, Arc<Self>)>,
}

impl TokenWeights {
    /// The weights of gpt-4o, for every deployment.
    pub const fn new() -> Self {
        Self { output: 3.0, unstated_output: 256.0, models: Vec::new() }
    }

    /// How many input tokens one output token costs (0 to 1,000).
    ///
    /// Defaults to 3: a PTU of gpt-4o serves 2,500 input or 833 output tokens a minute. It is 4
    /// for gpt-4.1; for later models it is the ratio of their prices (Azure page "Provisioned
    /// throughput", throughput per PTU).
    #[must_use]
    pub const fn output(mut self, weight: f64) -> Self {
        self.output = within(weight, 1_000.0);
        self
    }

    /// How many tokens a request without `max_tokens`, `max_completion_tokens` or `max_output_tokens`
    /// is assumed to generate (0 to 1,048,576).
    ///
    /// Defaults to 256, the size of an ordinary chat answer. The service "estimates a value" for such
    /// requests, which costs concurrency if their answers are short (Azure page "Provisioned
    /// throughput"); the value is not published. Too low a value makes the gate take the PTU for less
    /// full than it is, until the next refusal; too high a value makes it spill what the PTU would
    /// have served.
    #[must_use]
    pub const fn unstated_output(mut self, tokens: f64) -> Self {
        self.unstated_output = within(tokens, 1_048_576.0);
        self
    }

    /// Other weights for one model. `name` is the deployment in the path or, if the path has none,
    /// the `model` in the body, as the caller writes it. If two entries share a name, the later one
    /// wins. The models named in `weights` are ignored.
    #[must_use]
    pub fn model(mut self, name: impl AsRef<str>, mut weights: Self) -> Self {
        // A name that no deployment can have is in no request either.
        if let Some(name) = Deployment::new(name.as_ref()) {
            weights.models = Vec::new();
            self.models.push((name, Arc::new(weights)));
        }
        self
    }

    fn weights_for(&self, head: &Head<'_>, demand: &Demand<'_>) -> Option<&Arc<Self>> {
        if self.models.is_empty() {
            return None;
        }
        let path = head.uri.path();
        let segment = ApiPath::of(path).deployment().map(|segment| &path[segment]);
        let named = |name: &Deployment| match segment {
            Some(segment) => segment == &**name.name() || segment == name.segment(),
            None => demand.model == Some(name.json()),
        };
        self.models.iter().rev().find(|(name, _)| named(name)).map(|(_, weights)| weights)
    }

    fn cost(&self, head: &Head<'_>, demand: &Demand<'_>) -> f64 {
        if !Operation::has_output(head.uri.path()) {
            return demand.prompt;
        }
        let longest = demand.longest.map_or(self.unstated_output, |tokens| tokens as f64);
        demand.prompt + self.output * longest * f64::from(demand.choices)
    }
}

impl Default for TokenWeights {
    fn default() -> Self {
        Self::new()
    }
}

impl EstimateCost for TokenWeights {
    fn estimate(&self, head: &Head<'_>, content: Option<&[u8]>) -> f64 {
        let demand = demand(head, content);
        self.weights_for(head, &demand).map_or(self, |weights| weights).cost(head, &demand)
    }

    fn actual(&self, usage: &Usage) -> f64 {
        let prompt = usage.prompt.saturating_sub(usage.cached);
        prompt as f64 + self.output * usage.completion as f64
    }

    fn for_request(
        &self,
        head: &Head<'_>,
        content: Option<&[u8]>,
    ) -> Option<Arc<dyn EstimateCost>> {
        if self.models.is_empty() {
            return None;
        }
        let weights = self.weights_for(head, &demand(head, content))?;
        Some(Arc::<Self>::clone(weights))
    }

    fn weigh(
        &self,
        head: &Head<'_>,
        content: Option<&[u8]>,
    ) -> (f64, Option<Arc<dyn EstimateCost>>) {
        let demand = demand(head, content);
        match self.weights_for(head, &demand) {
            Some(own) => (own.cost(head, &demand), Some(Arc::<Self>::clone(own))),
            None => (self.cost(head, &demand), None),
        }
    }
}

fn demand<'a>(head: &Head<'_>, content: Option<&'a [u8]>) -> Demand<'a> {
    if ContentKind::of(head.headers) == ContentKind::Multipart {
        return Demand::upload();
    }
    match content {
        Some([]) => Demand::nothing(),
        Some(content) => {
            let draw = random::draw_if(Demand::needs_draw(content.len()));
            Demand::read(content, head.fields, draw)
        }
        None => match content_length(head.headers) {
            Some(0) => Demand::nothing(),
            length => {
                let length = usize::try_from(length.unwrap_or(0));
                Demand::unread(length.unwrap_or(usize::MAX))
            }
        },
    }
}

/// Clamps `value` to 0 to `high`; NaN becomes 0.
const fn within(value: f64, high: f64) -> f64 {
    if value >= 0.0 { value.min(high) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, Uri, header};

    use super::*;

    const CHAT: &str = "/openai/deployments/gpt-4o-ptu/chat/completions?api-version=2024-10-21";

    fn estimate(weights: &TokenWeights, uri: &'static str, body: &str) -> f64 {
        let (uri, headers) = (Uri::from_static(uri), HeaderMap::new());
        weights.estimate(&Head::new(&uri, &headers), Some(body.as_bytes()))
    }

    fn unread(name: header::HeaderName, value: &'static str, content: Option<&[u8]>) -> f64 {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static(value));
        TokenWeights::new().estimate(&Head::new(&Uri::from_static(CHAT), &headers), content)
    }

    #[test]
    fn output_weighs_three_times_as_much_as_input() {
        let weights = TokenWeights::new();
        let body = r#"{"prompt":"12345678","max_tokens":100,"n":2}"#;
        assert_eq!(estimate(&weights, CHAT, body), 2.0 + 3.0 * 100.0 * 2.0);
        assert_eq!(weights.actual(&Usage::new(1_000, 200, 10)), 800.0 + 30.0);
        assert_eq!(weights.actual(&Usage::new(1, 200, 0)), 0.0);
    }

    #[test]
    fn a_request_that_names_no_limit_is_taken_to_generate_a_usual_answer() {
        let body = r#"{"prompt":"12345678"}"#;
        assert_eq!(estimate(&TokenWeights::new(), CHAT, body), 2.0 + 3.0 * 256.0);
        let terse = TokenWeights::new().unstated_output(10.0);
        assert_eq!(estimate(&terse, CHAT, body), 2.0 + 3.0 * 10.0);
    }

    #[test]
    fn embeddings_generate_nothing() {
        let path = "/openai/deployments/ada/embeddings?api-version=2024-10-21";
        assert_eq!(estimate(&TokenWeights::new(), path, r#"{"input":"12345678"}"#), 2.0);
    }

    #[test]
    fn a_body_that_is_not_read_counts_by_its_length_or_its_kind() {
        assert_eq!(unread(header::CONTENT_LENGTH, "4000", None), 1_000.0 + 768.0);
        assert_eq!(unread(header::CONTENT_LENGTH, "many", None), 768.0);
        assert_eq!(unread(header::CONTENT_LENGTH, "0", None), 0.0);
        assert_eq!(unread(header::ACCEPT, "*/*", Some(b"")), 0.0);
        let upload = unread(header::CONTENT_TYPE, "Multipart/form-data; boundary=x", Some(b"--x"));
        assert_eq!(upload, 765.0 + 768.0);
    }

    #[test]
    fn each_model_has_its_own_weights_by_path_or_by_body() {
        let weights = TokenWeights::new()
            .model("gpt 4.1", TokenWeights::new().output(9.0))
            .model("gpt 4.1", TokenWeights::new().output(4.0))
            .model("", TokenWeights::new().output(0.0));
        let body = r#"{"model":"gpt 4.1","max_tokens":100}"#;
        for (uri, weight) in [
            ("/openai/deployments/gpt%204.1/chat/completions", 4.0),
            ("/openai/deployments/gpt-4o/chat/completions", 3.0),
            ("/openai/v1/chat/completions", 4.0),
            ("/openai/responses?api-version=2025-03-01-preview", 4.0),
        ] {
            assert_eq!(estimate(&weights, uri, body), weight * 100.0, "{uri}");
            let (uri, headers) = (Uri::from_static(uri), HeaderMap::new());
            let own = weights.for_request(&Head::new(&uri, &headers), Some(body.as_bytes()));
            let actual = own.as_deref().unwrap_or(&weights).actual(&Usage::new(0, 0, 100));
            assert_eq!(actual, weight * 100.0, "the estimate and the correction agree: {uri}");
        }
        let other = r#"{"model":"gpt-4o","max_tokens":100}"#;
        assert_eq!(estimate(&weights, "/openai/v1/responses", other), 300.0);
    }

    #[test]
    fn absurd_weights_are_moved_into_range() {
        let absurd = TokenWeights::new().output(f64::NAN).unstated_output(f64::INFINITY);
        assert_eq!(estimate(&absurd, CHAT, r#"{"prompt":"1234"}"#), 1.0);
        assert_eq!(TokenWeights::new().output(-1.0).actual(&Usage::new(0, 0, 7)), 0.0);
        let heavy = TokenWeights::new().output(1e300).unstated_output(1e300);
        assert!(estimate(&heavy, CHAT, r#"{"n":128}"#).is_finite());
    }

    #[test]
    fn a_head_does_not_show_its_keys() {
        let (uri, mut headers) =
            (Uri::from_static("/openai/v1/models?api-key=s3"), HeaderMap::new());
        headers.insert("api-key", HeaderValue::from_static("s3cret"));
        assert!(!format!("{:?}", Head::new(&uri, &headers)).contains("s3"));
    }
}
