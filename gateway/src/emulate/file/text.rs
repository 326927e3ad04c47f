//! The TOML as written, before validation.

use std::net::SocketAddr;

use serde::Deserialize;
use toml::Spanned;

use super::{fault::FaultText, span::Span};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileText {
    pub(super) seed: Option<u64>,
    #[serde(default)]
    pub(super) poison: Vec<Spanned<FaultText>>,
    #[serde(default)]
    pub(super) resources: Vec<ResourceText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ResourceText {
    pub(super) name: Spanned<String>,
    pub(super) region: Option<String>,
    pub(super) key: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) keys: Vec<Spanned<String>>,
    pub(super) token: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) tokens: Vec<Spanned<String>>,
    pub(super) listen: Option<SocketAddr>,
    pub(super) keep_alive: Option<bool>,
    pub(super) http2_streams: Option<u32>,
    pub(super) creations_per_minute: Option<u64>,
    pub(super) reads_per_minute: Option<u64>,
    #[serde(default)]
    pub(super) outages: Vec<Spanned<OutageText>>,
    #[serde(default)]
    pub(super) deployments: Vec<DeploymentText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeploymentText {
    pub(super) name: Spanned<String>,
    pub(super) model: Option<String>,
    pub(super) ptu: Option<Spanned<PtuText>>,
    pub(super) standard: Option<Spanned<StandardText>>,
    pub(super) flex: Option<Spanned<StandardText>>,
    pub(super) priority: Option<Spanned<StandardText>>,
    pub(super) media_per_minute: Option<u64>,
    pub(super) pace: Option<PaceText>,
    pub(super) spillover: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) hides_throttles: bool,
    #[serde(default)]
    pub(super) filters_prompts: bool,
    pub(super) keepalive: Option<Span>,
    #[serde(default)]
    pub(super) faults: Vec<Spanned<FaultText>>,
    #[serde(default)]
    pub(super) failures: Vec<Spanned<FaultText>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OutageText {
    pub(super) at: Option<Span>,
    pub(super) every: Option<Span>,
    pub(super) lasts: Option<Span>,
    pub(super) share: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PtuText {
    pub(super) tokens_per_second: f64,
    pub(super) bucket: Option<Spanned<Span>>,
    pub(super) output_weight: Option<f64>,
    pub(super) largest_request: Option<u64>,
    pub(super) too_large_for: Option<Span>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StandardText {
    pub(super) tokens_per_minute: Option<u64>,
    pub(super) requests_per_minute: Option<u64>,
    pub(super) too_large_for: Option<Span>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PaceText {
    pub(super) first_token: Option<Span>,
    pub(super) per_token: Option<Span>,
}
