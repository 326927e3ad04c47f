//! reqwest 0.12.

use reqwest_012 as reqwest;
use tower_spillover_adapters::reqwest_012 as adapter;

#[path = "reqwest/mod.rs"]
mod cases;
