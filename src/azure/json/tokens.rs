//! Tokenizes a JSON text that arrives in pieces, jumping from mark to mark.

use super::{Name, StringState, mark};

/// A position in a chunked JSON text. It looks only at quotes and brackets, so that it also reads a
/// text that is not JSON, and keeps nothing but the start of the last string.
#[derive(Debug, Default)]
pub(crate) struct Tokenizer {
    text: StringState,
    depth: usize,
    name: Name,
    /// The mark returned last, until the next token: up to then `depth` and `name` are those before
    /// it.
    mark: Option<Mark>,
}

/// The next part of a JSON text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    /// Commas, colons, numbers, words and white space, up to the mark that ends them or the end of
    /// the piece.
    Between(&'a [u8], Option<Mark>),
    /// Part of a string, as written, and whether it ends there.
    Text(&'a [u8], bool),
}

/// A mark between the tokens of a JSON text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The quote that begins a string.
    Quote,
    Bracket(Bracket),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bracket {
    Object,
    Array,
    Close,
}

impl Tokenizer {
    /// The next token, removed from `rest`; `None` if nothing is left to read.
    #[inline]
    pub(crate) fn next<'a>(&mut self, rest: &mut &'a [u8]) -> Option<Token<'a>> {
        let bytes = *rest;
        if bytes.is_empty() {
            return None;
        }
        if let Some(mark) = self.mark.take() {
            self.pass(mark);
        }
        if self.text.is_within() {
            let (part, length) = self.text.read(bytes);
            self.name.extend(part);
            *rest = &bytes[length..];
            return Some(Token::Text(part, !self.text.is_within()));
        }
        let at = mark(bytes);
        self.mark = bytes.get(at).map(|byte| match byte {
            b'"' => Mark::Quote,
            b'{' => Mark::Bracket(Bracket::Object),
            b'[' => Mark::Bracket(Bracket::Array),
            _ => Mark::Bracket(Bracket::Close),
        });
        if self.mark == Some(Mark::Quote) {
            self.text = StringState::Within;
        }
        *rest = &bytes[at + usize::from(self.mark.is_some())..];
        Some(Token::Between(&bytes[..at], self.mark))
    }

    /// Skips what is left of the object or array that the last mark began, or of the one around the
    /// last token; `depth` is the number of containers around that. Returns whether it ends in `rest`.
    pub(crate) fn skip_to(&mut self, depth: usize, rest: &mut &[u8]) -> bool {
        if let Some(mark) = self.mark.take() {
            self.pass(mark);
        }
        self.name = Name::default();
        while self.depth > depth {
            if !self.skip_string(rest) {
                return false;
            }
            let at = mark(rest);
            let Some(byte) = rest.get(at) else {
                *rest = &[];
                return false;
            };
            match byte {
                b'"' => self.text = StringState::Within,
                b'{' | b'[' => self.depth = self.depth.saturating_add(1),
                _ => self.depth -= 1,
            }
            *rest = &rest[at + 1..];
        }
        true
    }

    /// Skips what is left of the string that has begun, if one has. Returns whether it ends in `rest`.
    pub(crate) fn skip_string(&mut self, rest: &mut &[u8]) -> bool {
        if let Some(mark) = self.mark.take() {
            self.pass(mark);
        }
        while self.text.is_within() {
            if rest.is_empty() {
                return false;
            }
            let (_, length) = self.text.read(rest);
            *rest = &rest[length..];
        }
        true
    }

    /// The number of objects and arrays around the last token. An object encloses its closing
    /// bracket, but not its opening one.
    pub(crate) const fn depth(&self) -> usize {
        self.depth
    }

    /// The start of the last string before or in the last token, if there was no bracket in between:
    /// before a bracket it is a key.
    pub(crate) const fn name(&self) -> &Name {
        &self.name
    }

    /// Whether every object and array has ended, or none has begun.
    pub(crate) fn is_outermost(&self) -> bool {
        match self.mark {
            None => self.depth == 0 && !self.text.is_within(),
            Some(Mark::Bracket(Bracket::Close)) => self.depth <= 1,
            Some(_) => false,
        }
    }

    fn pass(&mut self, mark: Mark) {
        self.name = Name::default();
        match mark {
            Mark::Quote => {}
            Mark::Bracket(Bracket::Close) => self.depth = self.depth.saturating_sub(1),
            Mark::Bracket(_) => self.depth = self.depth.saturating_add(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every string and bracket with its depth and the name before it.
    fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<(String, usize)> {
        let (mut tokens, mut found) = (Tokenizer::default(), Vec::new());
        for mut piece in pieces {
            while let Some(token) = tokens.next(&mut piece) {
                let name = |tokens: &Tokenizer| {
                    let names = [&b"a"[..], b"bc", b""];
                    let name = names.iter().find(|name| tokens.name().is(name));
                    String::from_utf8_lossy(name.expect("a name of the text")).into_owned()
                };
                match token {
                    Token::Text(_, true) => found.push((name(&tokens), tokens.depth())),
                    Token::Between(_, Some(Mark::Bracket(bracket))) => {
                        found.push((format!("{}{bracket:?}", name(&tokens)), tokens.depth()));
                    }
                    Token::Text(..) | Token::Between(..) => {}
                }
            }
        }
        found
    }

    #[test]
    fn a_text_reads_the_same_however_it_is_cut() {
        let text = br#" {"a": {"bc":1, "a":[true, "bc"]}, "bc": "a"} "#;
        let whole = read([&text[..]]);
        let expected = [
            ("Object", 0),
            ("a", 1),
            ("aObject", 1),
            ("bc", 2),
            ("a", 2),
            ("aArray", 2),
            ("bc", 3),
            ("bcClose", 3),
            ("Close", 2),
            ("bc", 1),
            ("a", 1),
            ("aClose", 1),
        ];
        assert_eq!(whole, expected.map(|(token, depth)| (token.to_owned(), depth)));
        assert_eq!(read(text.chunks(1)), whole);
        assert_eq!(read(text.chunks(3)), whole);
    }

    #[test]
    fn the_outermost_level_is_known_without_the_next_token() {
        let mut tokens = Tokenizer::default();
        assert!(tokens.is_outermost());
        for (piece, is_outermost) in
            [("{", false), (r#""a"#, false), (r#"":[]"#, false), ("}", true)]
        {
            let mut piece = piece.as_bytes();
            while tokens.next(&mut piece).is_some() {}
            assert_eq!(tokens.is_outermost(), is_outermost);
        }
    }
}
