//! What is recorded of a finished request, as plain data: what logs, metrics and traces are made of.

use std::time::{Duration, Instant, SystemTime};

use http::StatusCode;
use tower_spillover::{
    Served,
    azure::Usage,
    classify::{Outcome, Reason},
    served::{Attempt, Late, Why},
    sticky::StickyMatch,
};

/// A request whose answer has gone out, or was given up.
#[derive(Debug)]
pub struct AccessRecord {
    /// The request's own id, as the client gets it (`x-request-id`).
    pub id: String,
    pub at: SystemTime,
    pub started: Instant,
    /// The client's name; `open` where no key is required.
    pub client: String,
    /// The configured model, if the request named one.
    pub model: Option<String>,
    pub class: Option<String>,
    /// `chat.completions`, `responses`, ...: one of the router's closed set, so that it can label a
    /// metric.
    pub operation: &'static str,
    pub streaming: bool,
    pub status: StatusCode,
    /// Which backend answered, what it took to get there; `None` where the gateway answered itself.
    pub served: Option<Served>,
    /// What others call it.
    pub ids: OtherIds,
    /// The level of a PTU's bucket as a share of its limit, where the answer said it.
    pub utilization: Option<f64>,
    /// Until the first text of the model went out, of a stream.
    pub first_token: Option<Duration>,
    /// Until the head of the answer went out.
    pub to_head: Duration,
    /// Until its last byte did.
    pub total: Duration,
    pub usage: Option<Usage>,
    /// What passed after the answer, where that opened a session.
    pub session: Option<SessionRecord>,
    pub ended: Ended,
}

impl AccessRecord {
    /// Of a request that has just come.
    pub fn new(id: String, at: SystemTime, started: Instant) -> Self {
        Self {
            id,
            at,
            started,
            client: String::new(),
            model: None,
            class: None,
            operation: "other",
            streaming: false,
            // What servers commonly note where the client left before there was an answer.
            status: StatusCode::from_u16(499).unwrap_or(StatusCode::REQUEST_TIMEOUT),
            served: None,
            ids: OtherIds::default(),
            utilization: None,
            first_token: None,
            to_head: Duration::ZERO,
            total: Duration::ZERO,
            usage: None,
            session: None,
            ended: Ended::ClientGone,
        }
    }
}

/// Ids under which others know a request, each with the name of the header that it was in.
#[derive(Debug, Default)]
pub struct OtherIds(String);

impl OtherIds {
    /// Adds one, whose name and value are of visible ASCII, unless it is there.
    pub fn push(&mut self, name: &str, id: &str) {
        if !self.iter().any(|other| other == (name, id)) {
            self.0.reserve(LIKELY_IDS_BYTES.saturating_sub(self.0.len()));
            self.0.extend([name, "=", id, "\n"]);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        // No name has an equals sign.
        self.0.lines().filter_map(|line| line.split_once('='))
    }
}

/// Two UUIDs with their names.
const LIKELY_IDS_BYTES: usize = 112;

/// Who ended a request, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The whole answer went out, the mark at the end of an event stream included.
    Complete,
    /// The client left before that, or did not take what it was sent.
    ClientGone,
    /// The backend's side broke the connection or the stream.
    Reset,
    /// Nothing more came from the backend for `upstream.idle_timeout`.
    Stalled,
    /// The backend ended its answer early: before its length, or without the mark at its end.
    Cut,
}

impl Ended {
    /// As labels and logs have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ClientGone => "client-gone",
            Self::Reset => "reset",
            Self::Stalled => "stalled",
            Self::Cut => "cut",
        }
    }
}

/// A realtime session that has ended.
#[derive(Debug)]
pub struct SessionRecord {
    /// Bytes that were passed on, frames and all.
    pub from_client: u64,
    pub from_backend: u64,
    /// `client` or `backend`, whichever closed it; `idle`; `broken`; `cut` at the end of a drain.
    pub end: &'static str,
}

/// Why a backend refused, as headers, labels and logs have it.
pub const fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Rate => "rate",
        Reason::Capacity => "capacity",
        Reason::Quota => "quota",
        Reason::ContextLength => "context-length",
        Reason::ServiceTier => "service-tier",
        Reason::Misconfigured => "misconfigured",
        Reason::Content => "content",
        _ => "other",
    }
}

/// Why an attempt gave no answer, likewise.
pub fn reason_of(attempt: &Attempt) -> Option<&'static str> {
    match attempt.outcome() {
        Outcome::Late => Some("first-token-late"),
        _ => attempt.reason().map(reason),
    }
}

/// What came of a second attempt, likewise.
pub const fn late(late: Late) -> &'static str {
    match late {
        Late::MovedOn => "moved-on",
        Late::HedgeWon => "hedge-won",
        Late::HedgeLost => "hedge-lost",
        _ => "other",
    }
}

/// Why a request was kept with one resource, likewise.
pub const fn held(held: StickyMatch) -> &'static str {
    match held {
        StickyMatch::ByName => "named",
        StickyMatch::ById => "known",
        StickyMatch::Home => "home",
        StickyMatch::Default => "unknown",
    }
}

/// Why the request waited, spilled and was refused, as far as it did.
pub fn reasons(served: &Served) -> impl Iterator<Item = (&'static str, Why)> {
    let reasons = [
        ("waited", served.why_waited()),
        ("spilled", served.why_spilled()),
        ("refused", served.why_refused()),
    ];
    reasons.into_iter().filter_map(|(event, why)| Some((event, why?)))
}

/// Why the request did not just go its way, likewise.
pub fn why(served: &Served) -> Option<&'static str> {
    served.why().map(|why| why.label())
}
