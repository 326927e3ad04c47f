//! What the benches time and the tests count: request paths over a client without any cost.

pub mod leaf;
pub mod lot;
pub mod paths;
