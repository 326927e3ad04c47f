//! Adapters between the layers of [`tower_spillover`] and the clients and servers that people use.
//!
//! Each is a module behind a feature of its name, and none is on by default.
//!
//! A [`Call`] reaches through a client library that shows neither its requests nor its responses.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod call;

pub use self::call::Call;
