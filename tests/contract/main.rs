//! What the layers promise, asked of their public surface.

mod clock;
mod leaf;

mod addressing;
mod cancellation;
mod readiness;
mod replaying;
mod retrying;
mod rotation;
mod tokens;
mod waiting;
mod waiting_rules;
