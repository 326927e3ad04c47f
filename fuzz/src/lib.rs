//! Shared by the fuzz targets: chunked bytes, and second parsers that favour simplicity over speed.

pub mod event;
pub mod fault;
pub mod inspecting;
pub mod pieces;
pub mod tree;
