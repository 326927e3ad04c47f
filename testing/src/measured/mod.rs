//! What the benches time and the tests count: paths of a request over a client that costs nothing.

pub mod leaf;
pub mod lot;
pub mod paths;
