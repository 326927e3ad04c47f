//! The labels of each metric. No value of one is made up by a client.

use std::{fmt, sync::Arc};

use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ModelLabels {
    pub(super) model: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct BackendLabels {
    pub(super) model: Arc<str>,
    pub(super) tier: &'static str,
    pub(super) backend: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct AttemptLabels {
    pub(super) model: Arc<str>,
    pub(super) tier: &'static str,
    pub(super) backend: Arc<str>,
    pub(super) status: Arc<str>,
    #[prometheus(flatten)]
    pub(super) reason: Because,
}

/// Why a backend refused: a label if known, and none otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Because(pub(super) Option<&'static str>);

impl EncodeLabelSet for Because {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        match self.0 {
            Some(reason) => [("reason", reason)].encode(encoder),
            None => Ok(()),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RequestLabels {
    pub(super) client: Arc<str>,
    pub(super) model: Arc<str>,
    pub(super) operation: &'static str,
    pub(super) status: u16,
    pub(super) decision: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct EndedLabels {
    pub(super) client: Arc<str>,
    pub(super) model: Arc<str>,
    pub(super) ended: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct DecisionLabels {
    pub(super) model: Arc<str>,
    pub(super) decision: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct WhyLabels {
    pub(super) model: Arc<str>,
    pub(super) event: &'static str,
    pub(super) why: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct LateLabels {
    pub(super) model: Arc<str>,
    pub(super) result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct TokenLabels {
    pub(super) client: Arc<str>,
    pub(super) model: Arc<str>,
    pub(super) backend: Arc<str>,
    /// The tier that paid for them.
    pub(super) tier: &'static str,
    pub(super) kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct SpilledLabels {
    pub(super) client: Arc<str>,
    pub(super) model: Arc<str>,
    pub(super) backend: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct SpilledTokenLabels {
    pub(super) client: Arc<str>,
    pub(super) model: Arc<str>,
    pub(super) backend: Arc<str>,
    pub(super) kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct SessionLabels {
    pub(super) model: Arc<str>,
    pub(super) end: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct SessionBytesLabels {
    pub(super) model: Arc<str>,
    pub(super) from: &'static str,
}
