//! Reads the JSON that passes by, without a tree of it.

mod number;
mod scan;
mod text;

use self::scan::quote_or_backslash;
pub(crate) use self::{
    number::count,
    scan::{Scan, Skipped, mark, members},
    text::{Name, Text},
};
