//! What the layers promise, asked of their public surface.

mod clock;
mod leaf;

mod accounts;
mod addressing;
mod bounds;
mod cancellation;
mod cloning;
mod gate;
mod inspecting;
mod properties;
mod readiness;
mod replaying;
mod retrying;
mod rotation;
mod secrets;
mod tokens;
mod waiting;
mod waiting_rules;
