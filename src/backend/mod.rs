//! Backends, the pool that they share, and the rewriting of requests for them.

mod rewrite;
