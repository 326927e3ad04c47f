//! The layer that inspects responses: its settings and their defaults.

use std::time::Duration;

use tower_layer::Layer;

use super::Inspect;
use crate::classify::{Classify, Rules};

/// Reads what the head of a response does not say: why a backend refuses, the wait that its message
/// asks for, and refusals hidden in a 200.
///
/// It belongs below all other layers, directly around the client, so that they see ordinary refusals:
/// a 429 with `retry-after-ms` and `retry-after`, and with a [`Refusal`] in its extensions that gives
/// the reason.
///
/// ```
/// use std::time::Duration;
///
/// use bytes::Bytes;
/// use http::{Request, Response, StatusCode};
/// use http_body_util::{BodyExt, Full};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_spillover::{
///     InspectLayer,
///     classify::{Hint, Reason, Refusal},
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // What Azure answers while it is over its limit: 200, and an error inside.
/// let client = service_fn(|_: Request<Full<Bytes>>| async {
///     Response::builder()
///         .header("content-type", "text/event-stream")
///         .body(Full::<Bytes>::from(concat!(
///             "event: response.created\n",
///             "data: {\"response\":{\"status\":\"in_progress\"}}\n\n",
///             "event: error\n",
///             "data: {\"type\":\"error\",\"error\":{\"type\":\"too_many_requests\",",
///             "\"code\":\"no_capacity\",\"message\":\"Please retry after 7 seconds.\"}}\n\n",
///         )))
/// });
/// let azure = ServiceBuilder::new().layer(InspectLayer::new()).service(client);
///
/// let request = Request::post("/openai/v1/responses").body(Full::<Bytes>::default())?;
/// let response = azure.oneshot(request).await?;
/// assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
/// assert_eq!(response.headers()["retry-after-ms"], "7000");
/// let refusal: &Refusal = response.extensions().get().unwrap();
/// assert_eq!(refusal.reason(), Reason::Capacity);
/// assert_eq!(refusal.hint(), Hint::After(Duration::from_secs(7)));
/// let body = response.into_body().collect().await?.to_bytes();
/// assert!(body.starts_with(br#"{"error":{"type":"too_many_requests""#));
/// # Ok(())
/// # }
/// ```
///
/// # What it reads
///
/// | response | read | becomes |
/// |---|---|---|
/// | 429 | its body | the same, with its reason, and with the wait from its message if no header states one outright |
/// | 529 | its body | the same, with its reason: a lack of capacity unless it says otherwise |
/// | 503 | its body | the same; a 429 if it names capacity: `server_is_overloaded`, "currently overloaded", or API Management's "Backend pool … is temporarily unavailable" |
/// | 403, JSON | its body | a 429 if API Management reports an exhausted quota; the same, with its reason, if a filter or policy refuses the request's content |
/// | 404 to a `POST` that cancels nothing | its body | the same, with its reason, if the deployment or the address is missing |
/// | 400 or 413, JSON | its body | the same, with its reason, if the request is too long for the deployment, or asks for a service tier that it does not offer |
/// | 200, event stream | up to the first event of the answer | if no tokens were used: a 429 for an error of rate, capacity or quota, a 400 for a request that is too long |
/// | 200, event stream of `/responses` with a nonzero `retry-after` | nothing | a 429 |
/// | 200, JSON of `/responses` | up to its `status`; all of it if that is `failed` | the same, if it failed without any output or used tokens |
///
/// A request is too long by the error's code (`context_length_exceeded`, `string_above_max_length`,
/// `tokens_limit_reached`) or, if the code only repeats the status, by its message ("maximum context
/// length is"). Every wording of overload counts as a lack of capacity; a plain `server_error` is
/// passed to the caller.
///
/// Everything else is passed through: 401, a 404 for an id, a content filter's 400 or error, and
/// every response with a compressed body. What was read is returned frame by frame, as it came.
///
/// Sources: the page "Manage Azure OpenAI quota" for the 429s; earendil-works/pi issue 7983,
/// openai-node pull request 2021 and sozercan/vekil pull requests 267 and 387 for the streams: of
/// eight captured, each of the five refused ones had `retry-after` and none of the others. For the
/// overload, opencode issue 25730 and openai/codex issue 43663; for the lengths, sub2api issue 5093
/// and LobsterAI issue 60.
///
/// # Streams
///
/// Events that only show that nothing has happened yet are held back:
///
/// | event | held back |
/// |---|---|
/// | `response.created`, `.in_progress`, `.queued` | whatever their length (one repeats the request, and had 61 KB); not for a response with `background`, whose id the caller needs |
/// | `keepalive`, `ping`, comments | always |
/// | a chunk of chat | with empty `choices`, like the filter's results for the prompt; not one with used tokens |
/// | an unknown name or type | with nothing but its type, ids, numbers and empty values, up to 4 KiB |
/// | any other, including every other name that begins with `response.` | never |
///
/// From the first event that is not held back, nothing is held, parsed or sent again. The caller sees
/// that event when it arrives, together with the head and the events before it; and these after
/// [`preamble_time`](Self::preamble_time) in any case.
///
/// Over HTTP/1.1, the rest of a response after a refusing event or head is read and discarded, so
/// that its connection is not closed: up to 64 KiB, for at most 50 ms.
///
/// An event stream with an announced length counts as one of `/responses` only: the service announces
/// none, so a chat answer with a `content-length` is passed through unread.
///
/// # Limitations
///
/// A body that is longer or slower than the limits is returned and passed through; if its head is a
/// refusal, it is judged by what has arrived. Each request holds up to 64 KiB of a refusal, and
/// [`preamble_limit`](Self::preamble_limit) of an answer. Waiting for a body needs a tokio runtime
/// with its timer enabled.
///
/// # Cost
///
/// A chat answer in JSON costs a check of the request's path, the status and the body's size hint,
/// and a move into the other body type. It allocates nothing. A preamble event takes about 0.5 us,
/// more than half of it to rule out a background response; once the event says so itself, as Azure's
/// do early, the rest of it is skipped.
///
/// [`Refusal`]: crate::classify::Refusal
#[derive(Clone, Debug, Default)]
pub struct InspectLayer {
    limits: Limits,
    rules: Rules,
}

/// Small, since every request carries them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    body_ms: u32,
    preamble_ms: u32,
    preamble_bytes: u32,
}

impl InspectLayer {
    /// Inspects with the default limits.
    pub const fn new() -> Self {
        Self { limits: Limits::DEFAULT, rules: Rules::AZURE }
    }

    /// The rules by which the heads of answers are read, before their bodies are. Defaults to Azure's.
    ///
    /// Inside of a [`RegionRotateLayer`](crate::RegionRotateLayer) it is better to leave that to the
    /// [backends](crate::Backend::classify), of which each has its provider.
    #[must_use]
    pub fn classify(mut self, rules: impl Classify) -> Self {
        self.rules = Rules::new(rules);
        self
    }

    /// How long the body of a refusal may take to arrive after its head.
    ///
    /// Defaults to 1 s: such a body has a few hundred bytes and comes with its head. A late one must
    /// not delay the next attempt.
    #[must_use]
    pub const fn body_time(mut self, time: Duration) -> Self {
        self.limits.body_ms = milliseconds(time);
        self
    }

    /// How long the preamble of an answer may be held back.
    ///
    /// Defaults to 30 s, after which the service itself sends an event to keep a silent connection
    /// alive, so a caller never waits longer for a sign of life than without this layer. Longer times
    /// are capped at that. It is nearly as long as the service has taken to report a lack of capacity
    /// (1 to 34 s), and half of the minute after which proxies give up on a response. Callers lose
    /// only events that show that nothing has happened yet. Zero passes on what does not come with
    /// the head.
    #[must_use]
    pub const fn preamble_time(mut self, time: Duration) -> Self {
        let ms = milliseconds(time);
        self.limits.preamble_ms = if ms > KEEP_ALIVE_MS { KEEP_ALIVE_MS } else { ms };
        self
    }

    /// How many bytes of an answer may be held back.
    ///
    /// Defaults to 1 MiB: a preamble repeats the request's instructions and tools, not its images.
    #[must_use]
    pub const fn preamble_limit(mut self, bytes: usize) -> Self {
        self.limits.preamble_bytes =
            if bytes > u32::MAX as usize { u32::MAX } else { bytes as u32 };
        self
    }
}

impl<S> Layer<S> for InspectLayer {
    type Service = Inspect<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Inspect { inner, limits: self.limits, rules: self.rules.clone() }
    }
}

impl Limits {
    const DEFAULT: Self =
        Self { body_ms: 1_000, preamble_ms: KEEP_ALIVE_MS, preamble_bytes: 1 << 20 };

    pub(super) const fn body_time(self) -> Duration {
        Duration::from_millis(self.body_ms as u64)
    }

    pub(super) const fn preamble_time(self) -> Duration {
        Duration::from_millis(self.preamble_ms as u64)
    }

    pub(super) const fn preamble_bytes(self) -> usize {
        self.preamble_bytes as usize
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

const fn milliseconds(time: Duration) -> u32 {
    let ms = time.as_millis();
    if ms > u32::MAX as u128 { u32::MAX } else { ms as u32 }
}

/// The interval of Azure's keep-alive events (vercel/ai issue 20574, openai-node issue 1965).
const KEEP_ALIVE_MS: u32 = 30_000;
