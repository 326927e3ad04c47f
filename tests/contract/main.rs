//! What the layers promise, asked of their public surface.

mod accounts;
mod addressing;
mod affinity;
mod attempts;
mod between_layers;
mod bounds;
mod cancellation;
mod cloning;
mod either_tier;
mod failures;
mod first_token;
mod gate;
mod inspected;
mod inspecting;
mod learning;
mod misconfigured;
mod native_spillover;
mod probing;
mod properties;
mod readiness;
mod reasons;
mod reopening;
mod replaying;
mod retrying;
mod rotation;
mod scope;
mod scope_properties;
mod secrets;
mod spilling_failures;
mod sticking;
mod sticking_tiers;
mod tokens;
mod unprocessed;
mod waiting;
mod waiting_rules;

use spillover_testing::{leaf, paused as clock};
