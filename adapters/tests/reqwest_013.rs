//! reqwest 0.13.

use ::reqwest;
use tower_spillover_adapters::reqwest as adapter;

#[path = "reqwest/mod.rs"]
mod cases;
