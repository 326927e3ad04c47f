//! The members of a header: repeated lines and comma-joined lists alike (RFC 9110, 5.3).

use http::{HeaderMap, HeaderName};

/// Every member of every line called `name`. Not for dates, which contain a comma.
pub(super) fn of<'a>(
    headers: &'a HeaderMap,
    name: &'a HeaderName,
) -> impl Iterator<Item = &'a [u8]> {
    headers.get_all(name).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
}

/// The end of each member of `line`: at every comma and at the end.
pub(super) fn ends(line: &[u8]) -> impl Iterator<Item = usize> {
    let commas = line.iter().enumerate().filter(|(_, byte)| **byte == b',');
    commas.map(|(at, _)| at).chain(std::iter::once(line.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::heads::head;

    #[test]
    fn a_repeated_line_and_a_joined_list_have_the_same_members() {
        let joined = head(&[("retry-after-ms", "1, 5")]);
        let repeated = head(&[("retry-after-ms", "1"), ("retry-after-ms", " 5")]);
        let name = HeaderName::from_static("retry-after-ms");
        assert_eq!(of(&joined, &name).collect::<Vec<_>>(), [b"1".as_slice(), b" 5"]);
        assert_eq!(of(&repeated, &name).count(), 2);
        assert_eq!(ends(b"1, 5").collect::<Vec<_>>(), [1, 4]);
    }
}
