//! Reads the JSON that passes by, without a tree of it.

mod number;
mod scan;
mod text;
mod tokens;

pub(crate) use self::{
    number::count,
    scan::{Scan, Skipped, mark, members},
    text::Name,
    tokens::{Bracket, Mark, Token, Tokens},
};
use self::{scan::quote_or_backslash, text::Text};
