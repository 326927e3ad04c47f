//! What the fuzz targets share: bytes in pieces, and second readings that nobody made fast.

pub mod event;
pub mod fault;
pub mod inspecting;
pub mod pieces;
pub mod tree;
