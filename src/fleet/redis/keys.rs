//! Names of keys. A key shows the fleet's name and hashes, never what is hashed.

use std::fmt::Write as _;

use ring::digest::{SHA256, digest};

use crate::fleet::Name;

/// The key of `name`. The part in braces determines the slot in a cluster, so that all keys of one
/// name are in the same slot.
pub(super) fn key(name: &Name) -> String {
    format!("{SCHEMA}:{{{}:{}:{}}}", name.fleet(), name.kind().letter(), hash(name))
}

/// What represents the name of a thing.
pub(super) fn hash(name: &Name) -> String {
    let hash = digest(&SHA256, name.of().as_bytes());
    let mut text = String::with_capacity(2 * HASH_BYTES);
    for byte in &hash.as_ref()[..HASH_BYTES] {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The key of what is closed at the backends of a fleet.
pub(super) fn closings(fleet: &str) -> String {
    format!("{SCHEMA}:{{{fleet}:c}}")
}

/// The channel of news about them.
pub(super) fn channel(fleet: &str) -> String {
    format!("{SCHEMA}:{{{fleet}:c}}:n")
}

/// The key of the processes of a fleet.
pub(super) fn replicas(fleet: &str) -> String {
    format!("{SCHEMA}:{{{fleet}:r}}")
}

/// The beginning of keys that only show whether a server of a cluster can be written to.
pub(super) const PROBE: &str = "sp1:p";

/// Changes with the layout of what is stored, so that old and new processes do not read each other's
/// state.
pub(super) const SCHEMA: &str = "sp1";

/// 64 bits: two of a thousand names have the same hash once in 10^13.
const HASH_BYTES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Kind;

    #[test]
    fn a_key_shows_no_name_but_the_fleet_s() {
        let name = |of: &str| Name::new(&"prod".into(), Kind::Budget, of);
        let key = key(&name("contoso.openai.azure.com/gpt-4o"));
        assert!(!key.contains("contoso") && !key.contains("gpt"), "{key}");
        assert!(key.starts_with("sp1:{prod:b:") && key.ends_with('}'), "{key}");
        assert_eq!(key.len(), "sp1:{prod:b:0123456789abcdef}".len());
        assert_ne!(super::key(&name("a")), super::key(&name("b")));
        assert!(PROBE.starts_with(SCHEMA));
    }
}
