//! What the layers promise, asked of their public surface.

mod clock;
mod leaf;

mod readiness;
mod retrying;
mod rotation;
mod tokens;
mod waiting;
mod waiting_rules;
