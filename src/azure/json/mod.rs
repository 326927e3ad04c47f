//! Reads the JSON that passes by, without a tree of it.

mod number;
mod scan;
mod text;
mod tokens;

use self::text::Text;
pub(crate) use self::{
    number::count,
    scan::{Scan, Skipped, mark, members, quote_or_backslash},
    text::Name,
    tokens::{Bracket, Mark, Token, Tokens},
};
