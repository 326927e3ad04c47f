//! Reads JSON as it passes, without building a tree.

mod long_array;
mod number;
mod scan;
mod text;
mod tokens;

use self::text::StringState;
pub(crate) use self::{
    long_array::ends_before,
    number::count,
    scan::{Scan, Skipped, decoded_length, is_escaped, mark, members, quote_or_backslash},
    text::Name,
    tokens::{Bracket, Mark, Token, Tokenizer},
};
