//! A hash that every process computes alike.

/// FNV-1a of 64 bits (G. Fowler, L. C. Noll, K.-P. Vo), written out because processes that share
/// resources are to agree, whatever they are built with.
pub(crate) fn fnv1a<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let bytes = parts.into_iter().flatten();
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
