//! Reads the JSON that passes by, without a tree of it.

mod scan;

pub(crate) use self::scan::{Scan, Skipped, mark, members, quote_or_backslash};
