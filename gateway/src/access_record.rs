//! The record of a finished request, as plain data, for logs, metrics and traces.

use std::time::{Duration, Instant, SystemTime};

use http::StatusCode;
use tower_spillover::{
    Served,
    azure::Usage,
    classify::{Outcome, Reason},
    served::{Attempt, Late, Why},
    sticky::StickyMatch,
};

/// A request whose answer was sent, or that was abandoned.
#[derive(Debug)]
pub struct AccessRecord {
    /// The request's id, as sent to the client (`x-request-id`).
    pub id: String,
    pub at: SystemTime,
    pub started: Instant,
    /// The client's name; `open` if no key is required.
    pub client: String,
    /// The configured model, if the request named one.
    pub model: Option<String>,
    pub class: Option<String>,
    /// `chat.completions`, `responses`, ...: one of the router's closed set, so that it can label a
    /// metric.
    pub operation: &'static str,
    pub streaming: bool,
    pub status: StatusCode,
    /// The backend that answered, and the attempts before; `None` if the gateway answered itself.
    pub served: Option<Served>,
    /// The ids that other systems use for it.
    pub ids: OtherIds,
    /// The level of a PTU's bucket as a share of its limit, if the answer stated it.
    pub utilization: Option<f64>,
    /// Until the model's first text was sent, for a stream.
    pub first_token: Option<Duration>,
    /// Until the head of the answer was sent.
    pub to_head: Duration,
    /// Until the last byte of the answer was sent.
    pub total: Duration,
    pub usage: Option<Usage>,
    /// The session that the answer opened, if it did.
    pub session: Option<SessionRecord>,
    pub ended: Ended,
}

impl AccessRecord {
    /// The record of a request that has just arrived.
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
            // The usual status in logs if the client disconnects before there is an answer.
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

/// Ids that other systems use for a request, each with the name of its header.
#[derive(Debug, Default)]
pub struct OtherIds(String);

impl OtherIds {
    /// Adds an id, whose name and value are visible ASCII, unless it is present.
    pub fn push(&mut self, name: &str, id: &str) {
        if !self.iter().any(|other| other == (name, id)) {
            self.0.reserve(LIKELY_IDS_BYTES.saturating_sub(self.0.len()));
            self.0.extend([name, "=", id, "\n"]);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        // Names have no equals sign.
        self.0.lines().filter_map(|line| line.split_once('='))
    }
}

/// Two UUIDs with their names.
const LIKELY_IDS_BYTES: usize = 112;

/// Who ended a request, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The whole answer was sent, including the end mark of an event stream.
    Complete,
    /// The client disconnected before that, or did not accept what was sent.
    ClientGone,
    /// The backend broke the connection or the stream.
    Reset,
    /// The backend sent nothing for `upstream.idle_timeout`.
    Stalled,
    /// The backend ended its answer early: before its length, or without the end mark.
    Cut,
}

impl Ended {
    /// The value in labels and logs.
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
    /// Bytes copied, frame headers included.
    pub from_client: u64,
    pub from_backend: u64,
    /// `client` or `backend`, whichever closed it; `idle`; `broken`; `cut` at the end of a drain.
    pub end: &'static str,
}

/// Why a backend refused, as in headers, labels and logs.
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

/// Why an attempt gave no answer, in the same form.
pub fn reason_of(attempt: &Attempt) -> Option<&'static str> {
    match attempt.outcome() {
        Outcome::Late => Some("first-token-late"),
        _ => attempt.reason().map(reason),
    }
}

/// The result of a second attempt, in the same form.
pub const fn late(late: Late) -> &'static str {
    match late {
        Late::MovedOn => "moved-on",
        Late::HedgeWon => "hedge-won",
        Late::HedgeLost => "hedge-lost",
        _ => "other",
    }
}

/// Why a request was pinned to a resource, in the same form.
pub const fn held(held: StickyMatch) -> &'static str {
    match held {
        StickyMatch::ByName => "named",
        StickyMatch::ById => "known",
        StickyMatch::Home => "home",
        StickyMatch::Default => "unknown",
    }
}

/// Why the request waited, spilled and was refused, where it did.
pub fn reasons(served: &Served) -> impl Iterator<Item = (&'static str, Why)> {
    let reasons = [
        ("waited", served.why_waited()),
        ("spilled", served.why_spilled()),
        ("refused", served.why_refused()),
    ];
    reasons.into_iter().filter_map(|(event, why)| Some((event, why?)))
}

/// Why the request was not simply served by its first attempt, in the same form.
pub fn why(served: &Served) -> Option<&'static str> {
    served.why().map(|why| why.label())
}
